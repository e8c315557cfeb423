"""Amounts as people read them."""

from __future__ import annotations

import pytest

from dsreg.units import duration_text, rate_text, share_text, size_text


@pytest.mark.parametrize(("size", "text"), [
    (0, "0 B"), (1, "1 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (4096, "4.0 KiB"), (10 * 1024 + 512, "10.5 KiB"),
    (1 << 20, "1.0 MiB"), (123 << 20, "123 MiB"), ((1 << 30) - 1, "1024 MiB"), (1 << 30, "1.0 GiB"),
    (1 << 40, "1.0 TiB"), (3 << 50, "3.0 PiB"), (1 << 64, "16384 PiB"),
])
def test_sizes(size: int, text: str) -> None:
    assert size_text(size) == text
    assert rate_text(size) == f"{text}/s"


@pytest.mark.parametrize(("share", "text"), [
    (0.0, "0%"), (0.25, "25%"), (0.989, "98%"), (0.99, "99.0%"), (0.9999, "99.9%"), (1.0, "100%"),
])
def test_shares(share: float, text: str) -> None:
    assert share_text(share) == text


@pytest.mark.parametrize(("seconds", "text"), [
    (0, "0 s"), (59.4, "59 s"), (61, "1 min 1 s"), (3661, "1 h 1 min"), (90061, "1 d 1 h"),
])
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text

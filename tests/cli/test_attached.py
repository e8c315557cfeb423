"""What the nodes' reports come to."""

from __future__ import annotations

from typing import Any

import pytest

from dsreg.health.attached import Attachment, attachment_of


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        ([], Attachment(0, "")),
        ([{}, {}], Attachment(0, "")),
        ([{"epoch": 3, "attached_by": "a"}, {"epoch": 3, "attached_by": ""}], Attachment(3, "a")),
        # A node that has missed the take-over still has the connection of the first one.
        ([{"epoch": 2, "attached_by": "old"}, {"epoch": 3, "attached_by": ""}], Attachment(3, "")),
        ([{"epoch": 2, "attached_by": "old"}, {"epoch": 3, "attached_by": "new"}], Attachment(3, "new")),
        ([{"epoch": 7, "attached_by": ""}], Attachment(7, "")),
    ],
)
def test_the_newest_epoch_counts(reports: list[dict[str, Any]], expected: Attachment) -> None:
    assert attachment_of(reports) == expected

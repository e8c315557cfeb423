"""The page: what it says of a cluster, that it is sound HTML, and that nobody else can write a part of it."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from dsreg.health.answers import NodeAnswer
from dsreg.page.document import POLICY, document
from dsreg.page.style import STYLE
from dsreg.page.view import View
from tests.page.scenes import DOWN, HEALING, LEARNING, NO_QUORUM, SCENES, WELL, down, up, view

EMPTY = {"meta", "link", "line", "polyline"}


class Parsed(HTMLParser):
    """Elements in their order with their attributes, and all text. Fails where they are not nested."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs)
        self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in EMPTY
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text += data + " "

    def orders(self) -> list[str]:
        """Attributes that would run something, or change how it looks."""
        return [key for _, attributes in self.elements for key in attributes if key.startswith("on") or key == "style"]

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(params=SCENES)
def parsed(request: pytest.FixtureRequest) -> Parsed:
    return Parsed(document(SCENES[request.param]))


def test_it_is_sound_and_needs_nothing_from_elsewhere(parsed: Parsed) -> None:
    assert [len(parsed.all(tag)) for tag in ("html", "head", "body", "title", "h1", "main", "style")] == [1] * 7
    assert parsed.all("html") == [{"lang": "en"}] and not parsed.all("script") and not parsed.all("form")
    links = [value for _, attributes in parsed.elements for key, value in attributes.items()
             if key in ("href", "src", "action", "srcset", "data")]
    assert set(links) == {"metrics", "healthz", "data:,"}
    assert not parsed.orders()
    assert "url(" not in STYLE and "@import" not in STYLE
    assert {"http-equiv": "refresh", "content": "5"} in parsed.all("meta")


def test_tables_and_drawings_can_be_heard(parsed: Parsed) -> None:
    heads = [head for head in parsed.all("th") if head.get("role") == "columnheader"]
    assert heads and all(head["scope"] == "col" for head in heads)
    assert all(head["scope"] == "row" for head in parsed.all("th") if head not in heads)
    assert all(cell["data-label"] for cell in parsed.all("td"))
    assert len(parsed.all("caption")) == len(parsed.all("table"))
    assert all(drawing["role"] == "img" and "now:" in str(drawing["aria-label"]) for drawing in parsed.all("svg"))
    assert all(bar["aria-label"] and 0 <= float(str(bar["value"])) <= 1 for bar in parsed.all("progress"))


def test_the_policy_lets_this_style_through_and_nothing_else() -> None:
    inside = re.search(r"<style>(.*?)</style>", document(WELL), re.DOTALL)
    assert inside is not None
    found = base64.b64encode(hashlib.sha256(inside[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{found}';" in POLICY and POLICY.startswith("default-src 'none';")
    assert "script" not in POLICY and "unsafe" not in POLICY


def test_a_cluster_that_is_well() -> None:
    text = Parsed(document(WELL)).text
    for part in ("Well", "3 of 3 nodes answer", "1 more node may be lost", "No check finds anything",
                 "web-1, process 4711", "epoch 12", "10.0 GiB", "2 of 3 nodes", "10.0.0.3:7001", "in sync",
                 "1,500", "17.6 MiB/s", "this node", "59.0 GiB", "has attached the disk", "nothing is damaged"):
        assert part in text, part
    assert "To do" not in text and "NaN" not in text and "None" not in text


def test_a_node_that_is_down() -> None:
    text = Parsed(document(DOWN)).text
    for part in ("Degraded", "2 of 3 nodes answer", "No node may be lost now", "connection refused",
                 "start node 3, with its directory"):
        assert part in text, part


def test_healing_and_scrub_have_bars() -> None:
    page = Parsed(document(HEALING))
    assert page.all("progress") == [
        {"value": "0.7949", "max": "1", "aria-label": "copy of node 3"},
        {"value": "0.4300", "max": "1", "aria-label": "scrub of node 2"}]
    for part in ("behind", "79%, 700 MiB missing, 24.0 MiB/s, 29 s left", "runs,", "1.0 GiB of 3.0 GiB"):
        assert part in page.text, part
    assert "40%, 6.0 GiB missing" in Parsed(document(LEARNING)).text


def test_no_quorum_is_said_first_and_what_to_do_once() -> None:
    text = Parsed(document(NO_QUORUM)).text
    assert text.index("Critical") < text.index("The disk") and "No quorum: 1 of 3 nodes answer" in text
    assert text.count("start nodes 2, 3") == 1
    assert "Nobody who is connected has asked for anything" in text


def test_without_an_earlier_look_there_are_no_rates() -> None:
    page = Parsed(document(dataclasses.replace(WELL, before=(), history=())))
    assert "MiB/s" not in page.text and "Nothing to show yet" in page.text and not page.all("svg")


def test_nodes_that_tell_little() -> None:
    """Of older versions, waiting for others, or no members."""
    old = up(2)
    assert old.report is not None
    for key in ("requests", "clients", "storage", "scrub", "heal", "syncs", "damage", "uptime_s", "lives", "version"):
        del old.report[key]
    waiting = up(3, lives={"waits_for": "rank 3 has an empty directory"}, heal=None, damage=None)
    page = Parsed(document(view([up(1), old, waiting, down(4)])))
    assert "empty directory, waits for others" in page.text and "does not serve yet" in page.text


# --- what others have chosen ----------------------------------------------------------------------
HOSTILE = "</td><script>alert(1)</script><b style='x' onload=\"x\">&amp;\x1b[2J"
# Words that a page goes by; all others are shown as they are.
_OWN_WORDS = ("peers", "health")


def hostile(found: Any) -> Any:
    """The same, with each text that a node or a client has chosen made one that means harm."""
    if isinstance(found, dict):
        return {key: hostile(value) if key not in _OWN_WORDS else value for key, value in found.items()}
    if isinstance(found, list):
        return [hostile(value) for value in found]
    return HOSTILE if isinstance(found, str) else found


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_nobody_writes_a_part_of_the_page(scene: View) -> None:
    def harm(answer: NodeAnswer) -> NodeAnswer:
        node = dataclasses.replace(answer.node, host=HOSTILE)
        return NodeAnswer(node, hostile(answer.report), HOSTILE if answer.fault else "")

    answers = [harm(answer) for answer in scene.answers]
    # Who has the same name is one client.
    changed = view(answers, scene.no_quorum and HOSTILE, file=HOSTILE, when=HOSTILE, before=scene.before)
    page = Parsed(document(changed))
    assert not page.all("script") and page.text.count("<script>alert(1)</script>") >= 10
    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in Parsed(document(HEALING)).elements} | {"p"}
    assert not page.orders()


# --- colours --------------------------------------------------------------------------------------
def colours(text: str) -> dict[str, str]:
    return dict(re.findall(r"--([a-z0-9-]+):(#[0-9a-f]{3,6})", text))


def brightness(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[start:start + 2], 16) / 255 for start in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """By WCAG 2."""
    dark, light = sorted((brightness(one), brightness(other)))
    return (light + 0.05) / (dark + 0.05)


LIGHT, DARK = STYLE.split("@media (prefers-color-scheme:dark)")


@pytest.mark.parametrize("scheme", [LIGHT, DARK.split("}}")[0]], ids=["light", "dark"])
@pytest.mark.parametrize(("text", "back", "least"), [
    *((text, back, 4.5) for text in ("text", "faint") for back in ("page", "card")),
    *((text, "card", 4.5) for text in ("well", "worse", "down", "line0")),
    *((text, f"{text}-back", 4.5) for text in ("notice", "worse", "down")),
    ("line0", "card", 3.0), ("line1", "card", 3.0), ("bar", "bar-back", 3.0),
])
def test_contrast(scheme: str, text: str, back: str, least: float) -> None:
    found = colours(scheme)
    assert contrast(found[text], found[back]) >= least


def test_both_schemes_have_all_colours() -> None:
    light, dark = colours(LIGHT), colours(DARK)
    assert set(light) == set(dark) == set(re.findall(r"var\(--([a-z0-9-]+)\)", STYLE)) | {"well-back"}



"""Diagrams that are drawn by hand: SVG that a browser shows by itself, in light and dark, and can read out."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from tests.docs.tables import DOCS, ROOT

SVG = "{http://www.w3.org/2000/svg}"
DIAGRAMS = {"write": DOCS / "architecture.md", "rejoin": DOCS / "lives.md", "upgrade": ROOT / "deploy" / "runbook.md"}
# What would fetch or run something, and text that is drawn as curves.
NOT_ALLOWED = ("script", "image", "foreignObject", "use")
# As wide as a page of GitHub shows it without making it smaller.
MAX_WIDTH = 800
# What a character takes on average in DejaVu Sans, among the widest of the fonts that may be there, at 13 pixels.
PIXELS = 7

pytestmark = pytest.mark.parametrize("name", DIAGRAMS)


def parsed(name: str) -> ElementTree.Element:
    return ElementTree.parse(DOCS / f"{name}.svg").getroot()


def texts(root: ElementTree.Element) -> list[tuple[float, float, str]]:
    """Where each stands: x, y, and what it says."""
    found = [(float(text.get("x", "nan")), float(text.get("y", "nan")), text) for text in root.iter(f"{SVG}text")]
    return [(x, y, "".join(text.itertext())) for x, y, text in found]


def test_it_is_shown_with_words_in_its_place(name: str) -> None:
    page = DIAGRAMS[name].read_text()
    [(words, path)] = re.findall(rf"^!\[(.+)\]\((\S*{name}\.svg)\)$", page, re.MULTILINE)
    assert len(words) > 20 and (DIAGRAMS[name].parent / path).resolve() == DOCS / f"{name}.svg"


def test_it_says_what_it_shows(name: str) -> None:
    root = parsed(name)
    for part in root.get("aria-labelledby", "").split():
        [labelled] = [each for each in root.iter() if each.get("id") == part]
        assert labelled.tag in (f"{SVG}title", f"{SVG}desc") and labelled.text
    assert len(root.get("aria-labelledby", "").split()) == 2


def test_it_fetches_nothing(name: str) -> None:
    root = parsed(name)
    assert not [each.tag for each in root.iter() if each.tag in [f"{SVG}{tag}" for tag in NOT_ALLOWED]]
    assert not [key for each in root.iter() for key in each.keys() if key.endswith("href") or key.startswith("on")]
    text = (DOCS / f"{name}.svg").read_text()
    assert set(re.findall(r"url\(([^)]*)\)", text)) <= {"#tip"} and "@import" not in text


def test_each_colour_is_there_for_light_and_for_dark(name: str) -> None:
    [style] = parsed(name).findall(f"{SVG}style")
    light, dark = (style.text or "").split("@media (prefers-color-scheme: dark)")
    coloured = [re.findall(r"([.\w]+) \{[^}]*#[0-9a-f]{6}", part) for part in (light, dark)]
    assert coloured[0] and coloured[0] == coloured[1]
    assert not [each.tag for each in parsed(name).iter() if {"fill", "stroke", "style"} & set(each.keys())]
    used = {word for each in parsed(name).iter() for word in each.get("class", "").split()}
    assert used == set(re.findall(r"\.([a-z]+)(?= \{)", light))


def test_text_stays_within_it(name: str) -> None:
    root = parsed(name)
    width, height = float(root.get("width", "nan")), float(root.get("height", "nan"))
    assert width <= MAX_WIDTH and root.get("viewBox") == f"0 0 {width:g} {height:g}"
    assert len(texts(root)) > 10
    groups = [each for each in root.iter() if each.get("class", "").endswith("middle")]
    centred = {words for group in groups for words in group.itertext()}
    for x, y, words in texts(root):
        assert x >= 0 and 13 <= y <= height - 4, words
        assert x + len(words) * PIXELS / (2 if words in centred else 1) <= width, words


def test_steps_are_numbered_downwards(name: str) -> None:
    steps = [(y, int(words)) for x, y, words in texts(parsed(name)) if words.isdigit()]
    assert [number for _, number in steps] == list(range(1, len(steps) + 1)) and steps == sorted(steps)


def test_it_names_what_there_is(name: str) -> None:
    """Commands are those of the page that it stands on."""
    root, page = parsed(name), DIAGRAMS[name].read_text()
    commands = [each for each in root.iter() if each.get("class") == "code"]
    assert commands or name == "write"
    for command in commands:
        assert (command.text or "").replace("@1", "@R") in page

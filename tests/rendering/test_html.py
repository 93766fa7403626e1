"""The HTML page as text: self-contained, escaped, balanced, and understood on its first screen."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
from support import reports
from support.balance import parsed
from support.hostile import HOSTILE, hostile

from initdiag import Report, Verdict
from initdiag.rendering import html
from initdiag.rendering.html import to_fragment, to_html

ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "main", "header", "section", "footer", "span", "h1", "h2", "h3", "p", "div", "ol", "ul", "li",
    "code", "strong", "small", "sup", "figure", "figcaption", "svg", "path", "rect", "text", "table", "thead", "tbody", "tr", "th", "td", "details",
    "summary", "dl", "dt", "dd", "script",
}  # fmt: skip


@pytest.mark.parametrize("name", reports.ALL)
def test_it_is_balanced_and_fetches_nothing(name):
    page = parsed(reports.ALL[name]().to_html())
    assert set(page.tags) <= ALLOWED
    assert not [
        value
        for tag, key, value in page.attributes
        if key in ("src", "href", "srcset", "action", "data") or key.startswith("on")
    ]
    assert [value for tag, key, value in page.attributes if (tag, key) == ("script", "type")] == [
        "application/json"
    ]
    assert "url(" not in reports.ALL[name]().to_html()
    assert "@import" not in reports.ALL[name]().to_html()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text(name):
    report = hostile(name)
    page = parsed(report.to_html())
    assert set(page.tags) <= ALLOWED
    assert page.tags.count("script") == 1
    assert json.loads("".join(page.data)) == json.loads(report.to_json())
    report.to_html().encode()


def test_the_test_of_hostile_names_can_fail(monkeypatch):
    unescaped = html._environment().overlay(autoescape=False)
    monkeypatch.setattr(html, "_environment", lambda: unescaped)
    with pytest.raises(AssertionError):
        test_hostile_names_are_text(HOSTILE[1])


@pytest.mark.parametrize("name", reports.ALL)
def test_the_data_is_the_report(name):
    report = reports.ALL[name]()
    assert Report.from_dict(json.loads("".join(parsed(report.to_html()).data))) == report


@pytest.mark.parametrize("verdict", Verdict)
def test_the_first_screen_is_in_plain_words(verdict):
    report = dataclasses.replace(reports.vanishing(), verdict=verdict)
    if verdict is Verdict.NO_VERDICT:
        report = reports.unjudged()
    page = report.to_html()
    first = page[page.index("<h1>") : page.index("<h2>What was found")]
    assert not re.search(
        r"beta|Jacobian|variance|kurtosis|log-", first.replace(report.risk_provenance, "")
    )
    assert "Risk" in first
    assert "What to do" in first
    if verdict.is_at_risk:
        assert "98 %" in first
        assert "kaiming_normal_" in first
    if verdict in (Verdict.VANISHING, Verdict.EXPLODING):
        assert "3.6&nbsp;&times;&nbsp;10<sup>4</sup> times too" in first


def test_several_reports_are_one_page():
    page = parsed(to_html(*(make() for make in reports.ALL.values())))
    assert page.tags.count("main") == len(reports.ALL)
    assert page.tags.count("html") == 1


def test_a_notebook_shows_a_fragment_without_the_data():
    report = reports.vanishing()
    assert report._repr_html_() == to_fragment(report)
    page = parsed(report._repr_html_())
    assert {"html", "body", "script"}.isdisjoint(page.tags)
    assert report.to_html() == to_html(report)


def test_the_style_reaches_nothing_outside_a_report():
    style = re.sub(
        r"/\*.*?\*/",
        "",
        to_fragment(reports.healthy()).split("<style>")[1].split("</style>")[0],
        flags=re.S,
    )
    selectors = [
        s.strip()
        for block in re.findall(r"([^{}]+)\{", style)
        if not block.strip().startswith("@")
        for s in re.split(r",(?![^()]*\))", block)
    ]
    assert len(selectors) > 30
    assert all(s.startswith(".initdiag") for s in selectors), [
        s for s in selectors if not s.startswith(".initdiag")
    ]


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(first: str, second: str) -> float:
    high, low = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_in_light_and_dark():
    """WCAG 2.1: 4.5 for text, 3 for graphics, on both grounds."""
    style = to_fragment(reports.healthy())
    themes = [
        dict(re.findall(r"--(\w+): (#\w{6})", block))
        for block in re.findall(r"\.initdiag \{(.*?)\}", style, re.S)
        if "--paper" in block
    ]
    assert len(themes) == 3  # light, dark, print
    for theme in themes:
        for ground in ("paper", "card"):
            for ink, least in (("ink", 4.5), ("quiet", 4.5), ("good", 4.5), ("bad", 4.5), ("unsure", 4.5), ("measured", 3), ("law", 3), ("normal", 3), ("activations", 3)):  # fmt: skip
                assert _contrast(theme[ink], theme[ground]) >= least, (ink, ground, theme)

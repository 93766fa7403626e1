"""The HTML page in a real headless Chromium: nothing complains, nothing is asked for, nothing hostile runs, everything fits."""

from __future__ import annotations

import os
import re

import pytest
from support import browser, reports
from support.hostile import HOSTILE, hostile


@pytest.fixture(scope="module")
def page():
    executable = browser.find()
    if executable is None:
        message = "NOT TESTED IN A BROWSER: no Chromium was found. Install one (Debian: apt-get install chromium) or name one in INITDIAG_CHROMIUM."
        (pytest.fail if os.environ.get("INITDIAG_REQUIRE_CHROMIUM") == "1" else pytest.skip)(
            message
        )
    opened = browser.Page(executable)
    yield opened
    opened.close()


SIZES = [(1280, 800), (390, 844)]
LONG = "encoder.blocks.11.attention.output.dense.weight" * 40


def write(tmp_path, report):
    path = tmp_path / "report.html"
    path.write_text(report.to_html(), encoding="utf-8")
    return path


def is_clean(page, path) -> bool:
    return page.requests == [path.as_uri()] and page.complaints == []


@pytest.mark.parametrize("name", reports.ALL)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_it_loads_alone_and_fits(page, tmp_path, name, scheme, width, height):
    path = write(tmp_path, reports.ALL[name]())
    page.open(path, width=width, height=height, scheme=scheme)
    assert is_clean(page, path), (page.requests, page.complaints)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.querySelector('h1').getBoundingClientRect().bottom") < height
    assert page.evaluate("document.compatMode") == "CSS1Compat"
    ground = page.evaluate("getComputedStyle(document.querySelector('.initdiag')).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}[scheme]


def test_the_first_screen_holds_verdict_risk_and_remedy(page, tmp_path):
    path = write(tmp_path, reports.vanishing())
    for width, height in SIZES:
        page.open(path, width=width, height=height)
        last = page.evaluate(
            "document.querySelector('.first li code').getBoundingClientRect().bottom"
        )
        assert last < height, (width, last)


@pytest.mark.parametrize("name", [*HOSTILE, LONG], ids=range(len(HOSTILE) + 1))
def test_hostile_names_are_inert(page, tmp_path, name):
    path = write(tmp_path, hostile(name))
    page.open(path, width=390, height=844)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    assert is_clean(page, path), (page.requests, page.complaints)
    assert page.evaluate("typeof window.pwned") == "undefined"
    assert (
        page.evaluate(
            "document.querySelectorAll('script, img, iframe, object, embed, link, form').length"
        )
        == 1
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_nothing_drawn_is_cut_off(page, tmp_path):
    """Every text of every drawing lies inside its drawing."""
    page.open(write(tmp_path, reports.vanishing()))
    outside = page.evaluate(
        "[...document.querySelectorAll('figure svg')].flatMap(s => { const o = s.getBoundingClientRect(); return [...s.querySelectorAll('text')]"
        ".filter(t => { const r = t.getBoundingClientRect(); return r.left < o.left - 1 || r.right > o.right + 1 || r.top < o.top - 1 || r.bottom > o.bottom + 1 })"
        ".map(t => t.textContent) })"
    )
    assert outside == []
    assert page.evaluate("document.querySelectorAll('figure svg').length") == 3


def test_it_prints_on_paper(page, tmp_path):
    path = write(tmp_path, reports.vanishing())
    page.open(path, scheme="dark", media="print")
    pdf = page.pdf()
    assert pdf.startswith(b"%PDF")
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 2
    assert (
        page.evaluate("getComputedStyle(document.querySelector('.initdiag')).backgroundColor")
        == "rgb(255, 255, 255)"
    )
    assert (
        page.evaluate("getComputedStyle(document.querySelector('.initdiag')).color")
        == "rgb(0, 0, 0)"
    )


def test_a_page_that_runs_and_fetches_is_caught(page, tmp_path):
    """The checks above can fail: without the policy and the escaping the same browser complains, asks and runs."""
    path = tmp_path / "bad.html"
    path.write_text(
        "<!DOCTYPE html><img src='http://127.0.0.1:9/x'><script>window.pwned = 1; console.error('no')</script>"
    )
    page.open(path)
    assert page.evaluate("typeof window.pwned") == "number"
    assert len(page.requests) == 2
    assert page.complaints

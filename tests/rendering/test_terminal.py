"""The report in terminals of any width and encoding, with and without colour."""

from __future__ import annotations

import dataclasses
import io
import re

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console
from support import reports

from initdiag import Architecture
from initdiag.diagnosing.spectral_report import spectral_report
from initdiag.rendering import tables
from initdiag.rendering.console import to_text
from initdiag.rendering.spectrum import to_text as spectrum_text
from initdiag.rendering.terminal import Grid, Histogram

WIDTHS = (40, 41, 47, 53, 60, 66, 72, 80, 100, 120, 200)
ENCODINGS = ("ascii", "latin-1", "cp1252", "koi8-r", "gbk", "shift_jis")


def large():
    """Numbers as wide as they come, a long name, many layers."""
    report = reports.vanishing()
    shares = tuple(
        dataclasses.replace(
            share, name=f"encoder.blocks.{i}.attention.weight", log_mean=-1.25e9 - i
        )
        for i, share in enumerate(report.prediction.layers)
    )
    moments = dataclasses.replace(
        report.prediction.known, log_mean=-1.25e109, rms_gain_log_mean=-1.25e109
    )
    prediction = dataclasses.replace(report.prediction, layers=shares, moments=moments)
    m = report.measurement
    return dataclasses.replace(
        report,
        prediction=prediction,
        measurement=dataclasses.replace(m, log_norms=m.log_norms * 1e90),
    )


REPORTS = {**reports.ALL, "large": large}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", REPORTS)
def test_no_line_is_too_long_and_no_number_is_cut(name, width):
    report = REPORTS[name]()
    text = to_text(report, width)
    assert max(map(cell_len, text.split("\n"))) <= width
    wanted = [cell for row in tables.number_rows(report) for cell in (row.predicted, row.measured)]
    wanted += [cell for row in tables.advice_rows(report) for cell in row[2:]]
    if report.basis != "none" and not report.ok:
        wanted += [cell for row in tables.quantile_rows(report) for cell in row]
        wanted += [cell for row in tables.layer_rows(report, 60) for cell in row[-2:]]
        wanted += ["5 %", "50 %", "95 %", *tables.LAYER_HEADERS[-2:]]
        wanted += [
            *(tables.advice_headers(report)[2:] if report.advice else ()),
            "predicted",
            "measured",
        ]
    for cell in filter(None, wanted):
        assert re.search(rf"(?<!\S){re.escape(cell)}(?!\S)", text), (cell, text)


def test_what_is_left_out_in_a_narrow_terminal_is_said():
    narrow, wide = (to_text(reports.vanishing(), width) for width in (44, 80))
    assert "fan_in, fan_out, gate, gain^2" in " ".join(narrow.split())
    assert "left out in a terminal" not in wide


@pytest.mark.parametrize("width", WIDTHS)
def test_the_spectrum_fits(width):
    report = spectral_report(Architecture.from_widths([64] * 5, init="torch_default"))
    text = spectrum_text(report, width)
    assert max(map(cell_len, text.split("\n"))) <= width
    for word in ("smallest", "largest", "95 %", "relative variance", "within a decade"):
        assert word in text


@pytest.mark.parametrize("width", WIDTHS)
def test_bars_are_added_up_not_cut_off(width):
    heights = np.arange(32.0)
    console = Console(file=io.StringIO(), width=width, legacy_windows=False)
    console.print(Histogram(heights, ("-12345.6", "1.23e+123"), "a label of the bars"))
    lines = console.file.getvalue().splitlines()
    bars = re.fullmatch(r"-12345.6 (.*) 1\.23e\+123(  a label of the bars)?\s*", lines[0])[1]
    assert len(bars) in (32, 16)
    assert bars[0] in " ▁"
    assert bars[-1] == "█"
    assert list(bars) == sorted(bars, key=" ▁▂▃▄▅▆▇█".index)
    assert "a label of the bars" in console.file.getvalue()


def printed(report, *, encoding="utf-8", environ=None, width=80) -> str:
    """What a terminal of this encoding is sent."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, newline="")
    console = Console(
        file=file, force_terminal=True, width=width, legacy_windows=False,
        _environ={"TERM": "xterm-256color", **(environ or {})},
    )  # fmt: skip
    console.print(report)
    file.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_encoding_that_lacks_our_signs_gets_simpler_ones(encoding):
    report = dataclasses.replace(reports.vanishing(), target="netz-\N{GRINNING FACE}-ü.py:build")
    text = printed(report, encoding=encoding)
    assert "VANISHING" in text
    assert "\N{GRINNING FACE}" not in text
    line = next(line for line in text.splitlines() if "ln gain^2 over draws" in line)
    bars = line.split(" -17.6")[0].split("-21.6 ")[1]
    assert len(bars) == 32
    assert set(bars) & set("@█")
    printed(reports.unjudged(), encoding=encoding)


def test_utf_8_keeps_every_sign():
    text = printed(reports.vanishing())
    assert "█" in text
    assert "─" in text


def test_the_encodings_are_worth_it():
    """Without the simpler signs the first of them fails."""
    with pytest.raises(UnicodeEncodeError):
        to_text(reports.vanishing()).encode("ascii")


COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9]")


def test_no_color_and_dumb_terminals():
    report = reports.vanishing()
    assert COLOUR.search(printed(report))
    assert not COLOUR.search(printed(report, environ={"NO_COLOR": "1"}))
    assert "\x1b" not in printed(report, environ={"TERM": "dumb"})


def test_markup_in_a_table_is_text():
    console = Console(file=io.StringIO(), width=60, legacy_windows=False)
    for grid in (
        Grid(("[red]", "b"), [("[bold]a[/bold]", "1")], "lr"),
        Grid(("[red]", "b" * 50), [("[bold]a[/bold]", "1")], "lr"),
    ):
        console.print(grid)
    text = console.file.getvalue()
    assert text.count("[bold]a[/bold]") == text.count("[red]") == 2

"""Findings from the spectrum, in a report and by themselves; and that they never change the verdict."""

from __future__ import annotations

import io
import json
import re

import numpy as np
import pytest
from rich.console import Console
from support.styles import mlp, seeded
from torch import nn

import initdiag
from initdiag import Architecture, Report
from initdiag.diagnosing.diagnose import diagnose_architecture
from initdiag.diagnosing.findings import Finding
from initdiag.diagnosing.spectral_report import SpectralReport, power, spectral_report
from initdiag.rendering.console import to_text
from initdiag.rendering.spectrum import section


def findings(widths, **assumptions) -> dict[str, Finding]:
    report = spectral_report(Architecture.from_widths(widths, **assumptions))
    return {finding.code: finding for finding in report.findings}


def test_a_good_spectrum_has_no_findings():
    assert findings([784, *[256] * 8, 10], init="orthogonal") == {}
    assert findings([512] * 4, init="orthogonal", activation="linear", gain=0.5**0.5) == {}


def test_scale_is_measured_against_one():
    off = findings([784, 256, 256, 10])["IND020"]
    assert off.severity == "warning"
    assert re.search(r"sigma\^2 .* is 0\.00926, where 1 keeps", off.message)
    assert (
        off.remedy == "multiply every weight by 2.18: 0.00926 -> 1"
    )  # (1/6)^2 (1/3) and its -1/6th power
    for gain, severity in (
        (0.6, None),
        (0.45, "note"),
        (0.1, "warning"),
        (1.8, "note"),
        (4.0, "warning"),
    ):
        found = findings([400, 400, 400], init="he_normal", gain=gain, output="relu").get("IND020")
        assert (found and found.severity) == severity


def test_spread_and_isometry_of_deep_gaussian_layers():
    found = findings([256] * 21, init="he_normal", output="relu")
    assert "15 % of the singular values" in found["IND021"].message
    assert (
        "relative variance of the squared singular values 40 (0 is isometric)"
        in found["IND023"].message
    )
    assert "as if 6 of 256 directions" in found["IND023"].message  # 256/41
    assert "nn.init.orthogonal_(w, 1.414) in every layer: 40 -> 20" in found["IND023"].remedy
    already = findings([256] * 21, init="orthogonal", output="relu")
    assert "orthogonal_" not in already["IND023"].remedy


def test_rank_lost_to_a_bottleneck_and_to_depth():
    narrow = findings([784, 500, 30, 500, 784], init="he_normal")["IND022"]
    assert (narrow.layer, narrow.severity) == ("1", "note")
    assert "15 of 784 directions pass: 15 of its 30 gates are open" in narrow.message
    assert narrow.remedy == "widen layer 1 from 30 to 60: 15 -> 30"
    deep = findings([128] * 101, init="he_normal", output="relu")["IND022"]
    assert deep.severity == "warning"
    assert re.search(
        r"64 of 128 directions pass.*; but single precision tells only \d+ of them from 0",
        deep.message,
    )
    assert "IND022" not in findings([784, 256, 10], init="he_normal")


def test_warnings_come_first():
    order = [finding.severity for finding in findings([64] * 31).values()]
    assert order == sorted(order, reverse=True)
    assert set(order) == {"warning", "note"}


def test_finite_width_is_warned_of_with_its_size():
    deep = findings([400] * 21, init="he_normal", output="relu")["IND024"]
    assert deep.severity == "warning"
    assert (
        "depth 20 the exact second moment is 1.1 times the limit's" in deep.message
    )  # 45.3/41 = 1.10
    assert "IND024" not in findings([400] * 11, init="he_normal", output="relu")
    smooth = findings([100] * 8, init="xavier_normal", activation="hardtanh")["IND024"]
    assert "the sum of 1/width is 0.06" in smooth.message
    assert "IND024" not in findings([400] * 8, init="xavier_normal", activation="hardtanh")


def test_nothing_is_promised_that_does_not_help(monkeypatch):
    """Sabotage: if no change helps, no remedy names one."""
    from initdiag.spectrum import improvements

    monkeypatch.setattr(improvements, "_changes", lambda arch, before: [("do nothing", arch)])
    found = findings([256] * 21, init="he_normal", output="relu")
    for code in ("IND021", "IND022", "IND023"):
        assert found[code].remedy == "fewer layers: nothing else that was tried helps"


def test_the_verdict_does_not_rest_on_it():
    for widths, assumptions in (([64] * 31 + [10], {}), ([784, 256, 10], {"init": "he_normal"})):
        arch = Architecture.from_widths(widths, **assumptions)
        plain, full = diagnose_architecture(arch), diagnose_architecture(arch, spectrum=True)
        assert (plain.verdict, plain.risk, plain.advice) == (full.verdict, full.risk, full.advice)
        assert full.findings[: len(plain.findings)] == plain.findings
        assert plain.spectrum is None
        assert full.spectrum == initdiag.predict_spectrum(arch)


def test_diagnose_and_check_take_it(capsys):
    model = seeded(lambda: mlp([32] * 21))
    report = initdiag.diagnose(model, draws=64, spectrum=True)
    assert report.spectrum.input_size == 32
    assert {"IND020", "IND021", "IND023", "IND024"} <= {f.code for f in report.findings}
    metrics = report.to_metrics()
    assert metrics["initdiag/spectrum_zero_mass"] == 0.5
    initdiag.check(model, draws=64, spectrum=True)
    assert "Spectrum of the Jacobian" in capsys.readouterr().out
    assert "Spectrum of the Jacobian" not in str(initdiag.diagnose(model, draws=64))


def test_what_is_not_covered_has_none_and_says_why():
    model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8))
    report = initdiag.diagnose(seeded(lambda: model), draws=64, spectrum=True)
    assert report.spectrum is None
    (finding,) = (f for f in report.findings if f.code == "IND025")
    assert "1: a norm" in finding.message or "layer_norm" in finding.message


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_round_trip_through_json(activation):
    arch = Architecture.from_widths([24, 24, 24, 8], activation=activation)
    report = diagnose_architecture(arch, spectrum=True)
    again = Report.from_dict(json.loads(report.to_json()))
    assert again == report
    assert again.spectrum.law.cdf(-3.0) == report.spectrum.law.cdf(-3.0)
    assert str(again) == str(report)
    alone = spectral_report(arch)
    assert (
        SpectralReport.from_dict(json.loads(json.dumps(alone.to_dict(), allow_nan=False))) == alone
    )


@pytest.mark.parametrize("width", [80, 120])
def test_console_section(golden, width):
    arch = Architecture.from_widths([128] * 9, init="he_normal")
    full = diagnose_architecture(arch, spectrum=True, target="128x9")
    text = to_text(full, width)
    text = text[text.index("Spectrum of the Jacobian") : text.rindex("─" * width)]
    assert max(map(len, text.splitlines())) <= width
    golden(f"spectrum-{width}.txt", text)


def test_the_picture_is_the_law():
    """Bars are shares of the law's own samples, in equal steps of ln sigma."""
    law = initdiag.predict_spectrum([64] * 5, init="he_normal")
    (line,) = re.findall(r"^ *(\S+) ([ ▁▂▃▄▅▆▇█]{32}) (\S+) ", as_text(section(law)), re.M)
    low, bars, high = line
    assert (float(low), float(high)) == pytest.approx(
        (float(np.exp(law.law.ppf(0.001) / 2)), law.upper_edge**0.5), rel=0.01
    )
    sample = law.law.rvs(size=40000, random_state=0)
    counts, _ = np.histogram(sample, bins=32, range=(float(law.law.ppf(0.001)), law.log_upper_edge))
    levels = np.array([" ▁▂▃▄▅▆▇█".index(bar) for bar in bars])
    assert np.abs(levels - 8 * counts / counts.max() - 0.5).max() < 0.75


def as_text(renderable) -> str:
    console = Console(file=io.StringIO(), width=100, no_color=True)
    console.print(renderable)
    return console.file.getvalue()


def test_extreme_depths_have_words():
    assert power(0.0) == "1"
    assert power(-54.86) == "1.49e-24"
    assert power(-5000.0) == "3.37e-2172"
    arch = Architecture.from_widths([8] * 2001)
    text = as_text(section(initdiag.predict_spectrum(arch)))
    assert "nan" not in text
    assert "inf" not in text


def test_a_chain_of_one_unit_has_words():
    text = as_text(section(spectral_report(Architecture.from_widths([1, 1])).spectrum))
    assert "nan" not in text
    assert "of 1" in text

"""The matplotlib figure: the panels that the report has, the same numbers as the HTML page, and no trace left in matplotlib."""

from __future__ import annotations

import dataclasses
import io
import re
import subprocess
import sys
import warnings
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from scipy import integrate
from support import report_strategies as made
from support import reports

from initdiag import InitdiagError, predict_spectrum
from initdiag.measuring.record import LayerMeasurement
from initdiag.rendering import curves, svg_panels
from initdiag.rendering.layers_csv import to_csv

TITLES = [
    "How large the gradient is",
    "Where it is lost",
    "Layer by layer, as measured",
    "In every direction",
]


def titles(figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]


def with_spectrum():
    report = reports.vanishing()
    return dataclasses.replace(report, spectrum=predict_spectrum(report.architecture))


@pytest.mark.parametrize(
    ("report", "count"),
    [
        (reports.vanishing(), 3),
        (reports.healthy(), 2),
        (reports.unjudged(), 0),
        (with_spectrum(), 4),
    ],
)
def test_the_panels_are_those_of_the_page(report, count):
    assert titles(report.figure()) == [panel.title for panel in svg_panels.panels(report)]
    assert set(titles(report.figure())) <= set(TITLES)
    assert len(titles(report.figure())) == count


def test_it_draws_the_series():
    report = reports.vanishing()
    first = report.figure().axes[0]
    law = next(line for line in first.lines if line.get_label() == "predicted")
    np.testing.assert_allclose(law.get_ydata(), curves.distribution(report).law.y)
    assert law.get_color() == "#D55E00"
    assert sum(bar.get_height() * bar.get_width() for bar in first.patches) == pytest.approx(1.0)


def test_the_density_is_the_predicted_laws():
    report = reports.vanishing()
    found = curves.distribution(report)
    assert integrate.trapezoid(found.law.y, found.law.x) == pytest.approx(0.998, abs=1e-3)
    mean = integrate.trapezoid(found.law.y * found.law.x, found.law.x) / 0.998
    assert mean == pytest.approx(report.prediction.log_mean + np.log(6.4), abs=0.02)


def test_perturbations_end_at_the_measured_gain():
    """The last layer's perturbation per feature is the gain itself, for a linear output."""
    report = reports.vanishing()
    m = report.measurement
    last = LayerMeasurement("24.weight", 0.0, 0.1, m.log_mean, m.log_variance)
    seen = dataclasses.replace(
        report, measurement=dataclasses.replace(m, layers=(*m.layers[:-1], last))
    )
    band = next(band for band in curves.bands(seen) if band.label == "perturbation")
    assert band.mean[-1] == pytest.approx(m.rms_gain_log_mean)


def test_weight_gradients_are_drawn_where_they_were_measured():
    report = reports.vanishing()
    assert [band.label for band in curves.bands(report)] == ["activations", "perturbation"]
    summary = SimpleNamespace(log_mean=-7.0, log_variance=4.0)
    layers = tuple(
        SimpleNamespace(**{n: getattr(one, n) for n in ("name", "activation_log_mean", "activation_log_variance", "tangent_log_mean", "tangent_log_variance")}, weight_gradient=summary if index else None)
        for index, one in enumerate(report.measurement.layers)
    )  # fmt: skip
    seen = dataclasses.replace(
        report, measurement=dataclasses.replace(report.measurement, layers=layers)
    )
    band = curves.bands(seen)[2]
    assert band.label == "weight gradients"
    np.testing.assert_array_equal(
        np.stack([band.mean, band.low, band.high])[:, 1], [-7.0, -11.0, -3.0]
    )
    assert np.isnan(band.mean[0])
    drawn = svg_panels.panels(seen)[2].shapes
    start = float(re.search(r'x="([\d.]+)"[^>]*>weight gradients<', drawn)[1])
    assert start + 7 * len("weight gradients") < svg_panels.WIDTH
    assert len(seen.figure().axes[-1].lines) == 3
    assert to_csv(seen).splitlines()[2].endswith(",-7.0,4.0")


@pytest.mark.slow
def test_matplotlib_is_left_as_it_was():
    before = dict(matplotlib.rcParams)
    reports.vanishing().figure()
    assert dict(matplotlib.rcParams) == before
    code = (
        "import sys; sys.path.insert(0, 'tests'); from support import reports; reports.vanishing().figure()\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_matplotlib_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InitdiagError, match=r"pip install 'initdiag\[plot\]'"):
        reports.healthy().figure()


@pytest.mark.slow
@settings(
    max_examples=8,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(report=made.reports())
def test_any_report_can_be_drawn(report):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        report.figure().savefig(io.BytesIO(), format="svg")

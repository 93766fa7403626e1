"""A result at a prompt is one line; in a notebook it is a small table."""

from __future__ import annotations

import pytest
from torch import nn

import initdiag
from initdiag._core.summary import number, with_error

MODEL = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))

RESULTS = {
    "predict": lambda: initdiag.predict([16, 32, 4], init="he_normal"),
    "predict of what no law covers": lambda: initdiag.predict(initdiag.trace(Odd(), input_size=(2, 16))),
    "measure": lambda: initdiag.measure(MODEL, draws=32),
    "screen": lambda: initdiag.screen([[16, 32, 4], [16, 8, 4]], init="he_normal"),
    "repair": lambda: initdiag.repair(nn.Linear(16, 4), "he_normal"),
    "predict_spectrum": lambda: initdiag.predict_spectrum([16, 32, 4]),
    "measure_spectrum": lambda: initdiag.measure_spectrum(MODEL, draws=2),
    "trace": lambda: initdiag.trace(MODEL),
    "parameter_gradients": lambda: initdiag.parameter_gradients([16, 32, 4]),
    "risk_map": lambda: initdiag.risk_map([16, 32, 4]),
    "diagnose": lambda: initdiag.diagnose(MODEL, method="none"),
    "compare": lambda: initdiag.compare(initdiag.diagnose(MODEL, method="none"), initdiag.diagnose(MODEL, method="none")),
}  # fmt: skip


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(16, 4)

    def forward(self, x):
        return self.inner(x).cumsum(1)


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_shows_itself(name):
    result = RESULTS[name]()
    line = repr(result)
    assert line.startswith(f"<initdiag.{type(result).__name__}")
    assert line.endswith(">")
    assert len(line) < 250
    assert "\n" not in line
    assert result._repr_html_().lstrip().startswith("<")


def test_the_numbers_are_those_of_the_record():
    found = initdiag.measure(MODEL, draws=32)
    assert f"log-mean {found.log_mean:.3g} +- {found.log_mean_se:.1g}" in repr(found)
    assert "<td>32 by signs</td>" in found._repr_html_()


def test_what_a_table_shows_is_escaped():
    record = initdiag.trace(MODEL)
    object.__setattr__(record, "source", "<b>")
    assert "&lt;b&gt;" in record._repr_html_()
    assert "<b>" not in record._repr_html_()


def test_numbers():
    assert [number(None), number(float("nan")), number(0.123456)] == ["-", "-", "0.123"]
    assert [with_error(1.0, 0.0), with_error(1.0, 0.04)] == ["1", "1 +- 0.04"]


def test_only_public_names_are_listed():
    assert set(dir(initdiag)) == {*initdiag.__all__, "__version__"}

"""Every usage fault has its own message: what was expected, what came, what to do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.styles import mlp
from torch import nn

import initdiag
from initdiag import InvalidInput, TargetError, UnsupportedArchitecture, Verdict
from initdiag.project.targets import load, parse_size, parse_widths


def _with_weight(value: float) -> nn.Module:
    model = mlp([4, 8, 2])
    with torch.no_grad():
        model[2].weight[0, 0] = value
    return model


class Raising(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 2)

    def forward(self, x):
        raise ZeroDivisionError("my own fault")


def _wrong_factory():
    return "a string"


def _needs_arguments(width):
    return mlp([width, 2])


CASES = {
    "not a module": (lambda: 42, None, r"a torch.nn.Module, or a function .*got 'int'"),
    "no weights": (lambda: nn.ReLU(), None, "at least one linear layer, got ReLU without a weight matrix"),
    "wrong width": (lambda: mlp([4, 8, 2]), torch.ones(3, 5), r"takes the input, got RuntimeError on a batch of shape \(3, 5\)"),
    "no batch dimension": (lambda: mlp([4, 8, 2]), torch.ones(4), r"first dimension the rows, got shape \(4,\)\. Add the batch"),
    "not a tensor": (lambda: mlp([4, 8, 2]), [[1.0] * 4], "a batch tensor.*got 'list'"),
    "empty batch": (lambda: mlp([4, 8, 2]), torch.ones(0, 4), "a batch tensor"),
    "integer input": (lambda: mlp([4, 8, 2]), torch.ones(3, 4, dtype=torch.long), "floating-point dtype.*torch.int64"),
    "infinite input": (lambda: mlp([4, 8, 2]), torch.full((3, 4), torch.inf), "a finite example_input"),
    "NaN weight": (lambda: _with_weight(torch.nan), None, "finite weights in '2.weight', got NaN or infinite"),
    "infinite weight": (lambda: _with_weight(torch.inf), None, "finite weights in '2.weight'"),
    "complex": (lambda: mlp([4, 8, 2]).to(torch.complex64), None, "real parameters, got '0.weight' of torch.complex64"),
    "forward raises": (lambda: Raising(), torch.ones(2, 4), "ZeroDivisionError on a batch .*my own fault"),
    "no outputs": (lambda: nn.Linear(8, 0), None, r"weights in 'weight' that have entries, got shape \(0, 8\)"),
    "nothing inside": (
        lambda: nn.Sequential(nn.Linear(8, 0), nn.ReLU(), nn.Linear(0, 4)), None, "weights in '0.weight' that have entries",
    ),
    "factory of something else": (lambda: _wrong_factory, None, "returns a torch.nn.Module, got _wrong_factory.. -> str"),
    "factory with arguments": (lambda: _needs_arguments, None, "called without arguments, got TypeError from _needs_arguments"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(4)), None, "example_input or input_size for a module with lazy layers, got neither"),
    "no width to try": (
        lambda: nn.Sequential(nn.Conv1d(2, 3, 1), nn.Flatten()), None, "example_input or input_size, got Sequential",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings(
    "ignore:Complex modules are a new feature",
    "ignore:Lazy modules",
    "ignore:Initializing zero-element",
)
@pytest.mark.parametrize(
    "entry", [initdiag.trace, initdiag.measure, initdiag.diagnose, initdiag.check]
)
@pytest.mark.parametrize(("build", "example", "message"), CASES.values(), ids=CASES.keys())
def test_usage_faults_raise(entry, build, example, message):
    with pytest.raises(InvalidInput, match=message):
        entry(build(), example)


def test_the_cause_of_a_raising_forward_is_chained():
    with pytest.raises(InvalidInput) as caught:
        initdiag.check(Raising(), torch.ones(2, 4))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": (4,)}, "batch dimension first"),
        ({"input_size": (2, 0)}, "input_size: a positive integer"),
        ({"input_size": "2,4"}, "input_size"),
        ({"method": "guess"}, "method: one of"),
        ({"optimizer": "lion"}, "optimizer: one of"),
        ({"draws": -3}, "draws"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InvalidInput, match=message):
        initdiag.diagnose(mlp([4, 8, 2]), **options)


def test_example_and_size_exclude_each_other():
    with pytest.raises(InvalidInput, match="example_input or input_size, got both"):
        initdiag.trace(mlp([4, 2]), torch.ones(2, 4), input_size=(2, 4))


class Cut(nn.Linear):
    """Returns none of its outputs."""

    def forward(self, x):
        return super().forward(x)[:, :0]


def test_an_output_without_entries_is_not_judged_and_said():
    for method in ("signs", "redraw", "law"):
        with pytest.raises(UnsupportedArchitecture, match="which has no entries"):
            initdiag.measure(Cut(4, 2), draws=4, method=method)
    report = initdiag.diagnose(Cut(4, 2), draws=4)
    assert report.verdict is Verdict.NO_VERDICT
    assert "shape (4, 0), which has no entries" in " ".join(str(report).split())


@pytest.mark.parametrize("size", [(10**12, 4), (2, 4, 10**9), [(2, 4), (10**12, 4)]])
def test_a_batch_that_would_not_fit_is_refused_before_memory_is_asked_for(size):
    for entry in (initdiag.trace, initdiag.diagnose, initdiag.measure_spectrum):
        with pytest.raises(InvalidInput, match="input_size of at most 134,217,728 numbers"):
            entry(mlp([4, 8, 2]), input_size=size)


def test_bad_fail_on_is_said_before_any_work():
    with pytest.raises(InvalidInput, match="fail_on"):
        initdiag.check(None, fail_on="always")


def test_an_all_zero_layer_is_a_finding_not_an_error():
    model = mlp([4, 64, 64, 2], init="he_normal")
    nn.init.zeros_(model[2].weight)
    report = initdiag.diagnose(model, draws=64)
    assert report.verdict is Verdict.SYMMETRIC
    assert [(f.code, f.layer) for f in report.findings if f.code == "IND007"] == [
        ("IND007", "2.weight")
    ]
    assert report.measurement.dead_fraction == 1
    assert "nan" not in str(report).lower()


TARGETS = {
    "no colon": ("model.py", "a target file.py:name"),
    "no file": ("nowhere/model.py:build", "a file nowhere/model.py"),
    "no such method": ("json:JSONDecoder.decod", "'decod' in json, got names decode, raw_"),
    "no such attribute of a package's": ("json:dumps.x", r"'x' in json, got no names"),
    "no package's name": (".json:x", "a target that imports.*invalid format"),
    "no module": ("no_such_package:build", "a target that imports.*ModuleNotFoundError"),
    "no name": ("examples/deep_mlp.py:bild", "'bild' in examples/deep_mlp.py, got names .*build"),
}


@pytest.mark.parametrize(("target", "message"), TARGETS.values(), ids=TARGETS.keys())
def test_bad_targets(target, message):
    with pytest.raises(TargetError, match=message):
        load(target)


def test_a_file_that_does_not_import(tmp_path):
    (tmp_path / "broken.py").write_text("import torch\n1 / 0\n")
    with pytest.raises(TargetError, match="ZeroDivisionError: division by zero"):
        load(f"{tmp_path}/broken.py:build")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "784",
        "784,256x,10",
        "784,x8,10",
        "784,-3",
        "784;10",
        "784,0,10",
        "784,2.5",
        "784,256x0,10",
    ],
)
def test_bad_width_texts(text):
    with pytest.raises(InvalidInput, match="expected"):
        initdiag.predict(parse_widths(text))


@pytest.mark.parametrize("text", ["", "2,", "2x", "x16", "2,-1", "0,16", "2x0", "2,1.5"])
def test_bad_sizes(text):
    with pytest.raises(TargetError, match="the shape of a batch such as 2,784"):
        parse_size(text)


CHAIN = initdiag.predict([4, 8, 2])
WRONG = {
    "a gain that overflows": (
        lambda: initdiag.predict([4, 4, 2], gain=1e200),
        "weight variance: a finite number",
    ),
    "widths for a prediction": (
        lambda: initdiag.failure_risk([4, 4]),
        "expected a Prediction, got list",
    ),
    "a rate in words": (lambda: initdiag.failure_risk(CHAIN, lr="a"), "lr: a positive number"),
    "an order in words": (lambda: CHAIN.law.log_moment("x"), "an order k >= 0, got 'x'"),
    "a negative order of a sample": (
        lambda: initdiag.predict([4, 4, 2], activation="tanh").law.log_moment(-1),
        "an order k >= 0, got -1",
    ),
    "a direction in words": (
        lambda: initdiag.measure(mlp([4, 8, 2]), direction="x"),
        "direction: .* got str",
    ),
    "a seed of 70 bits": (
        lambda: initdiag.measure(mlp([4, 8, 2]), seed=2**70),
        r"seed: a non-negative int below 2\*\*63",
    ),
    "thresholds": (
        lambda: initdiag.diagnose(mlp([4, 8, 2]), thresholds=5),
        "thresholds: an initdiag.Thresholds, got 5",
    ),
    "a slope of no activation": (
        lambda: initdiag.Architecture.from_widths([4, 8, 2]).replace(negative_slope=0.5),
        "negative_slope of leaky_relu alone",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_said(name):
    call, message = WRONG[name]
    with pytest.raises(InvalidInput, match=message):
        call()


@pytest.mark.parametrize("init", ["he_normal", 5])
def test_an_init_that_is_no_function_is_said_by_every_method(init):
    message = "init: a function of a module, as model.apply takes it"
    model = mlp([4, 8, 2])
    for method in ("signs", "redraw", "law"):
        with pytest.raises(InvalidInput, match=message):
            initdiag.measure(model, init=init, method=method)
    for method in ("auto", "none"):
        with pytest.raises(InvalidInput, match=message):
            initdiag.diagnose(model, init=init, method=method)
    with pytest.raises(InvalidInput, match=message):
        initdiag.measure_spectrum(model, init=init)


def test_a_direction_may_be_any_array():
    model, u = mlp([4, 8, 2]), [1.0, 0.0, 2.0, 0.0]
    expected = initdiag.measure(model, direction=torch.tensor(u), draws=8).log_norms
    for direction in (u, np.array(u), np.array(u, dtype=int)):
        assert (initdiag.measure(model, direction=direction, draws=8).log_norms == expected).all()


def test_a_slope_alone_changes_the_leaky_activations_that_there_are():
    arch = initdiag.Architecture.from_widths([4, 8, 2], activation="leaky_relu", dropout=0.1)
    changed = arch.replace(negative_slope=0.5)
    assert [layer.activation.negative_slope for layer in changed.layers] == [0.5, 0.0]
    assert changed.layers[0].activation.dropout == 0.1
    assert arch.replace(gain=1.0) == arch


class Unsaid(Exception):
    def __str__(self):
        raise RuntimeError("no text")


def test_an_error_whose_text_raises_is_said():
    def build():
        raise Unsaid

    with pytest.raises(InvalidInput, match=r"Unsaid from .*no text \(its __str__ raises Runtime"):
        initdiag.diagnose(build)

    class Fails(nn.Linear):
        def forward(self, x):
            raise Unsaid

    for entry in (initdiag.trace, initdiag.diagnose, initdiag.repair):
        with pytest.raises(InvalidInput, match=r"Unsaid on a batch .*no text"):
            entry(Fails(4, 2))


def test_what_is_too_wide_to_be_simulated_is_not_covered():
    found = initdiag.predict([4, 300_000, 300_000, 2], activation="tanh")
    assert found.coverage == "none"
    assert found.reasons == tuple(f"{i}: more than 262,144 units are not simulated" for i in (0, 1))
    assert initdiag.predict([4, 300_000, 300_000, 2]).coverage != "none"


def test_a_factory_that_fails_for_its_own_reasons_is_not_told_to_take_no_arguments():
    def unreachable():
        raise RuntimeError("database not reachable")

    with pytest.raises(
        InvalidInput, match=r"a factory that works, got RuntimeError from .*database not reachable"
    ):
        initdiag.diagnose(unreachable)
    with pytest.raises(InvalidInput, match="without arguments"):
        initdiag.diagnose(lambda width: mlp([width, 2]))

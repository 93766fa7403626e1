"""Reports made by hypothesis: whatever the records accept, and names that nobody would give."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import strategies as st

from initdiag.diagnosing.advice import Advice
from initdiag.diagnosing.agreement import Agreement
from initdiag.diagnosing.basis import Basis
from initdiag.diagnosing.findings import Finding, Severity
from initdiag.diagnosing.report import Report
from initdiag.diagnosing.verdict import Thresholds, Verdict
from initdiag.law.prediction import LayerPrediction, PredictedMoments, Prediction
from initdiag.measuring.record import LayerMeasurement, Measurement
from initdiag.network.architecture import (
    ACTIVATIONS,
    INITIALIZERS,
    Activation,
    Architecture,
    BiasLaw,
    Gap,
    Hypothesis,
    Layer,
    WeightLaw,
)

NASTY = (
    "", " ", "\n", "\x00", "\x1b[31m\x1b]0;t\x07", "[bold]x[/bold]", "[/red]", "[link=http://192.0.2.1]x", "\u202eabc", "\u2028", "\ud800", "\uffff",
    "</script><script>x</script>", "]]>", "<!--", "-->", "&amp;", '"\'', "`` ` ```", "a|b\\|c", "*_~#", "=1+1", "::error::x", "%0A", "{0}", "](http://x)", "$x^2$",
    "\\frac{", "x" * 3000, "字" * 50, "e\u0301" * 20, "🧨", "../../x.py:y", "C:\\x.py:y",
)  # fmt: skip
texts = st.one_of(st.sampled_from(NASTY), st.text(st.characters(codec=None), max_size=30))
numbers = st.one_of(st.floats(-100, 100), st.floats())
shares = st.one_of(st.floats(0, 1), st.floats())
maybe = st.one_of(st.none(), numbers)
positive = st.floats(1e-300, 1e300)
widths = st.integers(1, 40)


@st.composite
def activations(draw):
    name = draw(st.sampled_from(("relu", "relu", "linear", *ACTIVATIONS)))
    slope = draw(st.floats(-2, 2)) if name == "leaky_relu" else 0.0
    return Activation(name, slope, draw(st.sampled_from((0.0, 0.0, 0.5))))


@st.composite
def weights(draw):
    family = draw(st.sampled_from(("normal", "uniform", "haar", "other")))
    tests = st.lists(st.builds(Hypothesis, texts, numbers, st.booleans()), max_size=2).map(tuple)
    variance = draw(st.one_of(st.floats(1e-6, 1.0), st.floats(0.0, 1e300)))
    kurtosis = draw(st.floats(1, 10))
    return WeightLaw(
        family,
        variance,
        kurtosis,
        draw(st.sampled_from((None, *INITIALIZERS))),
        draw(positive),
        draw(maybe),
        draw(maybe),
        draw(tests),
    )


@st.composite
def architectures(draw):
    sizes = draw(st.lists(widths, min_size=2, max_size=6))
    gates = draw(
        st.sampled_from(
            (activations(), st.sampled_from((Activation("relu"), Activation("linear"))))
        )
    )
    biases = st.one_of(st.none(), st.builds(BiasLaw, st.floats(0, 1e300), st.booleans()))
    layers = tuple(
        Layer(draw(texts), a, b, draw(weights()), draw(gates), draw(biases))
        for a, b in itertools.pairwise(sizes)
    )
    gaps = draw(st.lists(st.builds(Gap, texts, texts, texts), max_size=3).map(tuple))
    if gaps and draw(st.booleans()):
        layers = layers[: draw(st.integers(0, len(layers)))]
    unused = draw(st.lists(texts, max_size=2).map(tuple))
    return Architecture(
        layers,
        sizes[0],
        sizes[-1],
        gaps,
        unused,
        draw(texts),
        draw(st.booleans()),
        draw(st.floats(0, 1e300)),
    )


@st.composite
def layer_predictions(draw, layer):
    gate = draw(st.sampled_from((layer.activation.gate, None)))
    variance = draw(st.one_of(st.just(layer.weight.variance), numbers))
    haar = draw(st.booleans())
    return LayerPrediction(
        draw(texts),
        layer.fan_in,
        layer.fan_out,
        gate,
        draw(numbers),
        draw(numbers),
        draw(numbers),
        draw(maybe),
        draw(shares),
        variance,
        haar,
    )


@st.composite
def sound_predictions(draw, architecture):
    """Numbers that a law can be made of, where every gate is discrete."""
    layers = tuple(
        LayerPrediction(
            draw(texts), layer.fan_in, layer.fan_out, layer.activation.gate, draw(st.floats(0.1, 3)), draw(st.floats(-10, 10)), draw(st.floats(0.01, 5)),
            draw(st.floats(0.01, 5)), draw(st.floats(0, 1)), draw(st.floats(1e-6, 1)), False,
        )
        for layer in architecture.layers
    )  # fmt: skip
    drift, variance, rest = (
        draw(st.floats(-60, 60)),
        draw(st.floats(0.05, 20)),
        draw(st.floats(0.01, 5)),
    )
    coverage = draw(st.sampled_from(("exact", "first-order")))
    return Prediction(
        coverage,
        (),
        PredictedMoments(drift, variance, 0.0, 0.0, drift, drift, variance, draw(st.floats(0, 1))),
        rest,
        layers,
    )


@st.composite
def predictions(draw, architecture):
    coverage = draw(st.sampled_from(("exact", "first-order", "simulated", "none")))
    layers = (
        tuple(draw(layer_predictions(layer)) for layer in architecture.layers)
        if draw(st.booleans())
        else ()
    )
    reasons = draw(st.lists(texts, max_size=2).map(tuple))
    samples = draw(st.one_of(st.none(), log_norms())) if coverage == "simulated" else None
    return Prediction(
        coverage,
        reasons,
        draw(st.one_of(st.none(), moments())),
        draw(maybe),
        layers,
        samples,
    )


def moments():
    return st.builds(PredictedMoments, *[numbers] * 7, shares)


def log_norms():
    return st.lists(numbers, min_size=1, max_size=30).map(lambda values: np.array(values))


@st.composite
def measurements(draw, architecture):
    names = [layer.name for layer in architecture.layers] + [draw(texts)]
    layers = tuple(LayerMeasurement(name, *(draw(numbers) for _ in range(4))) for name in names)
    with np.errstate(all="ignore"):
        return Measurement.of(
            draw(log_norms()), method=draw(st.sampled_from(("signs", "law", "redraw"))), seed=draw(st.integers(0)), input_size=draw(widths), output_size=draw(widths),
            layers=draw(st.sampled_from((layers, ()))), notes=draw(st.lists(texts, max_size=2).map(tuple)),
        )  # fmt: skip


@st.composite
def reports(draw):
    architecture = draw(architectures())
    severities = st.sampled_from(Severity)
    codes = st.one_of(st.sampled_from(("IND001", "IND008")), texts)
    findings = st.lists(
        st.builds(Finding, codes, severities, st.one_of(st.none(), texts), texts, texts),
        max_size=15,
    ).map(tuple)
    advice = st.lists(
        st.builds(Advice, texts, texts, *[numbers] * 4, shares, shares), max_size=3
    ).map(tuple)
    return Report(
        schema_version=1,
        initdiag_version=draw(texts),
        target=draw(texts),
        verdict=draw(st.sampled_from(Verdict)),
        basis=draw(st.sampled_from(Basis)),
        risk=draw(
            st.dictionaries(st.one_of(st.sampled_from(("sgd", "adam")), texts), shares, max_size=3)
        ),
        risk_provenance=draw(texts),
        optimizer=draw(st.sampled_from((None, "sgd", "momentum", "adam", "adamw"))),
        thresholds=Thresholds(draw(st.floats(0, 1)), draw(st.floats(0, 1))),
        architecture=architecture,
        prediction=draw(st.one_of(sound_predictions(architecture), predictions(architecture))),
        measurement=draw(st.one_of(st.none(), measurements(architecture))),
        spectrum=None,
        agreement=draw(st.one_of(st.none(), st.builds(Agreement, *[numbers] * 6, st.booleans()))),
        findings=draw(findings),
        advice=draw(advice),
        elapsed=draw(numbers),
    )

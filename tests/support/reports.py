"""Reports written by hand, for renderers and for the golden files: no law, no torch, no clock."""

from __future__ import annotations

import dataclasses

import numpy as np

from initdiag.diagnosing import findings
from initdiag.diagnosing.advice import Advice
from initdiag.diagnosing.agreement import Agreement
from initdiag.diagnosing.basis import Basis
from initdiag.diagnosing.report import Report
from initdiag.diagnosing.verdict import Thresholds, Verdict
from initdiag.law.prediction import LayerPrediction, PredictedMoments, Prediction
from initdiag.measuring.record import LayerMeasurement, Measurement
from initdiag.measuring.trial_record import LossTerm, Trial, TrialLayer
from initdiag.network.architecture import (
    Activation,
    Architecture,
    BiasLaw,
    Gap,
    Hypothesis,
    Layer,
    WeightLaw,
)


def _layer(name: str, fan_in: int, fan_out: int, activation: str) -> Layer:
    weight = WeightLaw(
        "uniform",
        1 / (3 * fan_in),
        1.8,
        "torch_default",
        sample_variance=0.99 / (3 * fan_in),
        sample_kurtosis=1.79,
        hypotheses=(Hypothesis("zero mean", 0.25, True), Hypothesis("symmetry", 0.75, True)),
    )
    return Layer(name, fan_in, fan_out, weight, Activation(activation), BiasLaw(1 / (3 * fan_in)))


def _prediction(architecture: Architecture) -> Prediction:
    layers = []
    for layer in architecture.layers:
        gate = layer.activation.gate
        assert gate is not None
        layers.append(
            LayerPrediction(
                layer.name,
                layer.fan_in,
                layer.fan_out,
                gate,
                layer.gain,
                -1.75,
                0.25,
                0.125,
                2.0**-64,
                layer.weight.variance,
                False,
            )
        )
    count = len(layers)
    return Prediction(
        coverage="first-order",
        reasons=("uniform weights: first order in the excess kurtosis",),
        moments=PredictedMoments(
            log_mean=-1.75 * count,
            log_variance=0.25 * count,
            log_mean_se=0.0,
            log_variance_se=0.0,
            rms_gain_log_mean=-1.75 * count + 1.5,
            hidden_drift=-1.75 * count + 1.75,
            hidden_log_variance=0.25 * (count - 1),
            dead_probability=1e-9,
        ),
        beta=0.125 * count,
        layers=tuple(layers),
    )


def vanishing() -> Report:
    """A deep chain at risk, predicted, measured, with findings and advice."""
    names = [(f"{2 * i}.weight", 64, 64, "relu") for i in range(12)] + [
        ("24.weight", 64, 10, "linear")
    ]
    architecture = Architecture(
        tuple(_layer(*n) for n in names), 64, 10, unused=("spare.weight",), source="Sequential"
    )
    log_norms = -21.0 + np.array(
        [-2.5, -1.5, -1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5, -np.inf]
    )
    layers = tuple(LayerMeasurement(n[0], -1.0, 0.5, -1.75, 0.25) for n in names)
    return Report(
        schema_version=1,
        initdiag_version="0.1.0",
        target="model.py:build",
        verdict=Verdict.VANISHING,
        basis=Basis.LAW,
        risk={"sgd": 0.984375, "adam": 0.25},
        risk_provenance="provisional: a test",
        optimizer=None,
        thresholds=Thresholds(),
        architecture=architecture,
        prediction=_prediction(architecture),
        measurement=Measurement.of(
            log_norms,
            method="signs",
            seed=3,
            input_size=64,
            output_size=10,
            layers=layers,
            notes=("a note",),
        ),
        spectrum=None,
        agreement=Agreement(-22.0, 3.0, 0.5, -1.5, 0.125, 0.001, True),
        findings=(
            findings.VANISHING.at(
                None,
                "a typical gradient reaches the input 36000 times too small",
                "He",
            ),
            findings.UNUSED.at(
                "spare.weight",
                "the forward pass never reaches it",
                "remove it, or use it",
            ),
        ),
        advice=(
            Advice(
                'nn.init.kaiming_normal_(w, nonlinearity="relu")',
                "code",
                -21.25,
                -0.5,
                3.25,
                3.0,
                0.984375,
                0.0625,
            ),
            Advice(
                "also widen the hidden layers: 12 x 64 -> 12 x 96",
                "",
                -21.25,
                -0.25,
                3.25,
                2.0,
                0.984375,
                0.03,
            ),
        ),
        elapsed=0.25,
    )


def healthy() -> Report:
    """A healthy network: short."""
    architecture = Architecture.from_widths([64, 256, 256, 10], init="he_normal")
    return Report(
        schema_version=1,
        initdiag_version="0.1.0",
        target="64,256x2,10",
        verdict=Verdict.HEALTHY,
        basis=Basis.LAW,
        risk={"sgd": 0.0078125, "adam": 0.0},
        risk_provenance="provisional: a test",
        optimizer="adam",
        thresholds=Thresholds(),
        architecture=architecture,
        prediction=_prediction(architecture),
        measurement=None,
        spectrum=None,
        agreement=None,
        findings=(),
        advice=(),
        elapsed=0.001,
    )


def unjudged() -> Report:
    """Neither covered nor measured, with a hostile name."""
    architecture = Architecture(
        (_layer("a\x1b[31m.weight", 8, 8, "relu"),),
        8,
        8,
        gaps=(Gap("norm[/b]\x07", "layer_norm", "a norm"),),
        source="Net",
    )
    return Report(
        schema_version=1,
        initdiag_version="0.1.0",
        target="bad\x1b]0;title\x07name.py:[red]x[/red]",
        verdict=Verdict.NO_VERDICT,
        basis=Basis.NONE,
        risk={},
        risk_provenance="provisional: a test",
        optimizer=None,
        thresholds=Thresholds(),
        architecture=architecture,
        prediction=Prediction("none", ("norm: a norm",), None, None, ()),
        measurement=None,
        spectrum=None,
        agreement=None,
        findings=(
            findings.NOT_COVERED.at(
                "norm[/b]\x07",
                "not covered by the theory: a norm",
                "judged from measurement",
            ),
            findings.NOT_MEASURED.at(None, "not measured: \x1b[2J", "see the reason"),
        ),
        advice=(),
        elapsed=1.5,
    )


def tried() -> Report:
    """A chain whose trial did not start, and is believed."""
    steps = np.arange(6.0)
    names = [layer.name for layer in vanishing().architecture.layers]
    layers = tuple(
        TrialLayer(name, -4.0 - steps, -8.0 + 0 * steps, -5.0, -1.0, 0.0, 0.25) for name in names
    )
    trial = Trial(
        wanted=50,
        steps=6,
        losses=(np.array([2.5, 2.375, 2.3125, 2.3125, 2.3125, 2.3125, 2.3125]),),
        constant_loss=2.3125,
        started=(False,),
        is_cut=False,
        stopped="steps",
        nonfinite_step=None,
        layers=layers,
        terms=(
            LossTerm("equation", 2.0, 1.875, 6.0, np.zeros(len(names))),
            LossTerm("boundary", 0.5, 0.4375, -6.0, np.zeros(len(names))),
        ),
        optimizer="SGD(lr=0.1)",
        loss="cross entropy",
        made_up=("random labels",),
        notes=(),
        rows=32,
        seconds=0.5,
    )
    message = trial.sentence()
    found = (
        findings.TRIAL_FAILED.at(None, message, "a lower learning rate"),
        findings.WITNESSES_DIFFER.at(None, "the trial is believed", "give the real setting"),
    )
    return dataclasses.replace(
        vanishing(),
        target="model.py:tried",
        advice=(),
        basis=Basis.TRIAL,
        risk={"sgd": 0.75, "adam": 0.25},
        optimizer="sgd",
        trial=trial,
        findings=found,
    )


ALL = {"vanishing": vanishing, "healthy": healthy, "unjudged": unjudged, "tried": tried}

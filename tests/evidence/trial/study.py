"""Does a trial of 50 steps agree with 400 steps of training? See ``PLAN.md``."""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import initdiag

HERE = Path(__file__).parent
INPUTS, CLASSES, ROWS, BATCH, STEPS, TEST = 16, 4, 2048, 64, 400, 512
TRAININGS = (
    ("sgd", 0.1, "classification"), ("adam", 1e-3, "classification"),
    ("sgd", 0.01, "regression"), ("adam", 1e-3, "regression"),
)  # fmt: skip
FALLS = (0.02, 0.05, 0.1, 0.2, 0.3)
SURE = 0.9


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Sine(nn.Module):
    def __init__(self, w=1.0):
        super().__init__()
        self.w = w

    def forward(self, x):
        return torch.sin(self.w * x)


class Fourier(nn.Module):
    def __init__(self, inputs, size, bandwidth):
        super().__init__()
        self.register_buffer("b", torch.randn(inputs, size) * bandwidth)

    def forward(self, x):
        p = 2 * torch.pi * (x @ self.b)
        return torch.cat([p.sin(), p.cos()], -1)


class Residuals(nn.Module):
    def __init__(self, outputs, n, blocks, scale, normalised):
        super().__init__()
        self.first, self.out = nn.Linear(INPUTS, n), nn.Linear(n, outputs)
        norm = (lambda: nn.LayerNorm(n)) if normalised else nn.Identity
        self.blocks = nn.ModuleList(
            nn.Sequential(norm(), mlp([n, n, n], nn.ReLU, he(scale))) for _ in range(blocks)
        )

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.out(x)


def mlp(sizes, act=nn.ReLU, init=None, between=None):
    layers = []
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        layer = nn.Linear(a, b)
        if init:
            init(layer.weight)
            nn.init.zeros_(layer.bias)
        is_last = i == len(sizes) - 2
        layers += [layer] if is_last else [layer, *([between(b)] if between else []), act()]
    return nn.Sequential(*layers)


def he(scale=1.0):
    return lambda w: nn.init.normal_(w, std=scale * (2 / w.shape[1]) ** 0.5)


def orthogonal(gain):
    return lambda w: nn.init.orthogonal_(w, gain)


def xavier(gain=1.0):
    return lambda w: nn.init.xavier_normal_(w, gain)


def lecun(w):
    return nn.init.normal_(w, std=w.shape[1] ** -0.5)


def constant(w):
    return nn.init.constant_(w, 0.01)


def siren(width, depth, out, w):
    layers = []
    for i in range(depth):
        fan_in = INPUTS if i == 0 else width
        layer = nn.Linear(fan_in, width)
        bound = 1 / fan_in if i == 0 else (6 / fan_in) ** 0.5 / 30
        nn.init.uniform_(layer.weight, -bound, bound)
        nn.init.zeros_(layer.bias)
        layers += [layer, Sine(w)]
    return nn.Sequential(*layers, nn.Linear(width, out))


def scaled(factor, net):
    return nn.Sequential(Apply(lambda x: factor * x), net)


def hidden(width, depth, out):
    return [INPUTS, *[width] * depth, out]


KINDS = {
    "he 2x128": lambda o: mlp(hidden(128, 2, o), init=he()),
    "he 6x64": lambda o: mlp(hidden(64, 6, o), init=he()),
    "default 2x128": lambda o: mlp(hidden(128, 2, o)),
    "default 4x64": lambda o: mlp(hidden(64, 4, o)),
    "tanh orthogonal 6x64": lambda o: mlp(hidden(64, 6, o), nn.Tanh, orthogonal(1.0)),
    "tanh xavier 4x64": lambda o: mlp(hidden(64, 4, o), nn.Tanh, xavier()),
    "gelu he 6x64": lambda o: mlp(hidden(64, 6, o), nn.GELU, he()),
    "selu lecun 8x64": lambda o: mlp(hidden(64, 8, o), nn.SELU, lecun),
    "layer norm 8x64": lambda o: mlp(hidden(64, 8, o), between=nn.LayerNorm),
    "batch norm 8x64": lambda o: mlp(hidden(64, 8, o), between=nn.BatchNorm1d),
    "residual normalised 6x64": lambda o: Residuals(o, 64, 6, 0.5, True),
    "elu lecun 22x16": lambda o: mlp(hidden(16, 22, o), nn.ELU, lecun),
    "default 20x64": lambda o: mlp(hidden(64, 20, o)),
    "default 12x32": lambda o: mlp(hidden(32, 12, o)),
    "gelu default 24x64": lambda o: mlp(hidden(64, 24, o), nn.GELU),
    "tanh orthogonal x .1 20x64": lambda o: mlp(hidden(64, 20, o), nn.Tanh, orthogonal(0.1)),
    "tanh gain 3 10x64": lambda o: mlp(hidden(64, 10, o), nn.Tanh, xavier(3.0)),
    "sigmoid default 5x64": lambda o: mlp(hidden(64, 5, o), nn.Sigmoid),
    "sigmoid xavier 12x35": lambda o: mlp(hidden(35, 12, o), nn.Sigmoid, xavier()),
    "sine w30 5x64": lambda o: siren(64, 5, o, 30.0),
    "fourier bandwidth 1": lambda o: nn.Sequential(Fourier(INPUTS, 64, 1.0), mlp([128, 64, 64, o])),
    "inputs x 1000": lambda o: scaled(1000.0, mlp(hidden(128, 2, o), init=he())),
    "inputs x 200, tanh out": lambda o: nn.Sequential(
        scaled(200.0, mlp(hidden(128, 2, o))), nn.Tanh()
    ),
    "sigmoid out, inputs x 100": lambda o: nn.Sequential(
        scaled(100.0, mlp(hidden(64, 1, o))), nn.Sigmoid()
    ),
    "he 40x14": lambda o: mlp(hidden(14, 40, o), init=he()),
    "he 12x5": lambda o: mlp(hidden(5, 12, o), init=he()),
    "residual 11x16": lambda o: Residuals(o, 16, 11, 0.67, False),
    "bottleneck 64-4-4-64": lambda o: mlp([INPUTS, 64, 4, 4, 4, 64, o], init=he()),
    "constant weights 2x64": lambda o: mlp(hidden(64, 2, o), init=constant),
    "softmax out 2x64": lambda o: nn.Sequential(mlp(hidden(64, 2, o)), nn.Softmax(-1)),
}
FIELDS = (
    "number", "kind", "optimizer", "lr", "loss", "score", "reference", "started", "verdict",
    "risk", "own", "own_failed", "made_up", "made_up_failed", "law_s", "trial_s", "truth_s",
)  # fmt: skip


def task(loss):
    """Inputs and targets of a random ReLU teacher: rows to train on, and held-out ones."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(ROWS + TEST, INPUTS, generator=generator)
    first = torch.randn(INPUTS, 32, generator=generator) / 4
    second = torch.randn(32, CLASSES, generator=generator)
    out = torch.relu(x @ first + torch.randn(32, generator=generator) / 2) @ second
    out = (out - out.mean(0)) / out.std(0)
    y = out.argmax(1) if loss == "classification" else out[:, :1]
    return x[:ROWS], y[:ROWS], x[ROWS:], y[ROWS:]


def loss_of(loss):
    return functional.cross_entropy if loss == "classification" else functional.mse_loss


def made(optimizer, lr, model):
    kind = torch.optim.SGD if optimizer == "sgd" else torch.optim.Adam
    return kind(model.parameters(), lr=lr)


def trained(model, optimizer, lr, loss):
    """The score over chance on held-out rows after 400 steps; NaN if the loss did not fall."""
    x, y, x_test, y_test = task(loss)
    function, steps = loss_of(loss), made(optimizer, lr, model)
    generator, losses = torch.Generator().manual_seed(2), []
    for _ in range(STEPS):
        chosen = torch.randint(ROWS, (BATCH,), generator=generator)
        steps.zero_grad()
        value = function(model(x[chosen]), y[chosen])
        value.backward()
        steps.step()
        losses.append(value.item())
        if not math.isfinite(losses[-1]):
            return math.nan
    if not np.mean(losses[-20:]) < np.mean(losses[:1]):
        return math.nan
    model.eval()
    with torch.no_grad():
        out = model(x_test)
    if loss == "classification":
        chance = y_test.bincount().max().item() / TEST
        return (out.argmax(1) == y_test).float().mean().item() - chance
    return 1 - function(out, y_test).item() / y_test.var(correction=0).item()


def references():
    """What a He network 16-128-128 gains over chance at each training."""
    found = {}
    for optimizer, lr, loss in TRAININGS:
        torch.manual_seed(0)
        out = CLASSES if loss == "classification" else 1
        found[optimizer, loss] = trained(KINDS["he 2x128"](out), optimizer, lr, loss)
    return found


def timed(function):
    begin = time.process_time()
    return function(), time.process_time() - begin


def fall(trial):
    from initdiag.measuring.trial_record import fall_of

    return fall_of(trial.losses[0], trial.constant_loss)


def one(number, kind, optimizer, lr, loss, reference):
    """The row of one network."""
    torch.manual_seed(number)
    model = KINDS[kind](CLASSES if loss == "classification" else 1)
    x, y, _, _ = task(loss)
    x, y = x[:BATCH], y[:BATCH]
    how = {"optimizer": optimizer, "lr": lr, "loss": loss}
    report, law_s = timed(lambda: initdiag.diagnose(model, x, draws=256, **how))
    own, trial_s = timed(lambda: trial_of(model, x, y, how))
    made_up = trial_of(model, x, None, how)
    score, truth_s = timed(lambda: trained(model, optimizer, lr, loss))
    started = score >= 0.1 * reference
    return (
        number, kind, optimizer, lr, loss, score, reference, started, report.verdict.value,
        report.risk.get(optimizer, math.nan), fall(own), own.nonfinite_step is not None,
        fall(made_up), made_up.nonfinite_step is not None, law_s, trial_s, truth_s,
    )  # fmt: skip


def trial_of(model, x, y, how, steps=50):
    from initdiag.measuring.trial import tried
    from initdiag.measuring.trial_plan import TrialPlan
    from initdiag.tracing.guard import untouched
    from initdiag.tracing.inputs import subject_of
    from initdiag.tracing.replica import own_modes
    from initdiag.tracing.trace import trace_subject

    with untouched(quiet=True), own_modes():
        subject = subject_of(model, x, None, None)
        return tried(TrialPlan(steps, y, None, **how), subject, trace_subject(subject), 0)


def run(path):
    torch.set_num_threads(1)
    done = set()
    if path.exists():
        with path.open(newline="") as file:
            done = {int(row["number"]) for row in csv.DictReader(file)}
    known = references()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if not done:
            writer.writerow(FIELDS)
        cases = [(kind, *how) for kind in KINDS for how in TRAININGS]
        for number, (kind, optimizer, lr, loss) in enumerate(cases):
            if number not in done:
                row = one(number, kind, optimizer, lr, loss, known[optimizer, loss])
                writer.writerow(f"{v:.5g}" if isinstance(v, float) else v for v in row)
                file.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--summary", action="store_true")
    if parser.parse_args().summary:
        from summary import write

        write(HERE)
    else:
        run(HERE / "runs.csv")

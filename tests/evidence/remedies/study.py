"""Do the remedies help? Networks flagged at risk, trained on the digits as built and after each remedy.

    PYTHONPATH=tests python -m evidence.remedies.study             # runs.csv; resumable, about a quarter of an hour on one core
    PYTHONPATH=tests python -m evidence.remedies.study --plan second   # second.csv; so the third and the fourth
    PYTHONPATH=tests python -m evidence.remedies.study --summary   # summary.txt

PLAN (written and committed before the first run)

*Population.* Networks of ReLU layers with a linear output, 64 -> hidden -> 10, drawn one after the other from ``numpy.random.default_rng(2026)``: 4 to 40 hidden
layers, widths constant, random, alternating, or with a bottleneck, of 6 to 96 units; initialised as PyTorch does, by He, Xavier or LeCun (normal), or by He times
0.67 or 1.5 (`network`). Each is judged by ``initdiag.diagnose(model, method="none", optimizer=...)`` for SGD and for Adam. For each optimiser the first 60 that are
called at risk and the first 40 that are called healthy are the population; a later network is not looked at. Nothing is left out afterwards.

*Remedies* of a flagged network, each on a fresh copy of it:
  - ``first advice``: the report's first advice, its code pasted; where it changes widths, a new network of those widths with its initialiser;
  - ``first initialiser``: the first advice that keeps the widths (as built, where there is none);
  - ``he_normal``, ``orthogonal``, ``rescale``: `initdiag.repair` by that method;
  - ``lsuv``: orthonormal weights, each layer scaled until its output on a batch of data has variance 1 (Mishkin and Matas 2016, arXiv 1511.06422; `lsuv`);
  - ``anyinit``, ``anyinit empirical``: ``anyinit.initialize(model)`` and ``(model, "empirical", batch)`` of anyinit 0.4.0, if it is installed.

*Training.* 400 steps at batch size 64: SGD at 0.1, Adam at 0.001; the same batches for all remedies of a network; one run each.

*Outcome.* "Fails": the accuracy on the 360 test rows gains less than a tenth over chance of what healthy networks gain (the mean of five 3 x 64 He networks with the same
optimiser), or is not a number, or the training loss is not below its first value: the definition that the risk is calibrated for. Beside it "below half":
an accuracy under 50 %.

*Figures.* For each optimiser and remedy: of the flagged networks that fail as built, the share that no longer does ("rescued"), with Wilson's 95 % interval; of all flagged
networks the share below half. Of the networks called healthy: the share that fails. Expected beforehand: first advice rescues at least 80 %.

SECOND PLAN (written when the first third of the first run was in, and committed before its own first run)

At SGD 0.1 the first advice rescued 9 of the first 19. Nine networks that it did not rescue, of 24 to 39 hidden layers, were trained again, with the same advice at a learning rate of 0.03,
0.01 and with Adam: all started (``--probe``, rates.csv). So 0.1 is too large a rate for such depths whatever the initialisation, and hides what the advice does. The second population is drawn afresh in the
same way from ``default_rng(2027)``, 60 flagged and 40 healthy for SGD, trained by SGD at 0.03; all else as above. The first run is completed and stands as it is.

THIRD PLAN (written and committed before its first run; the risk has been fitted anew since, with a term for depth, and a report can be told the learning rate)

`initdiag.diagnose` is told what is going to be done: ``optimizer``, ``lr`` (SGD 0.1, Adam 0.001) and ``loss="classification"``. The population is drawn afresh in the same way from
``default_rng(2029)``, 60 flagged and 40 healthy for each optimiser by that report; the first advice is that report's, and where it names a lower learning rate, that arm is trained at
it. One remedy more: ``skip connections``, the hidden layers of He networks of one width given skip connections as the advice writes them. All else as in the
first plan; "fails" is still measured against healthy networks at the plan's own learning rate. Expected beforehand: first advice rescues at least 80 % under both optimisers; of networks called
healthy at most 15 % fail under SGD 0.1 (the curve's own figure, README), 10 % under Adam.

FOURTH PLAN (written when the third run was in, and committed before its own first run)

The third plan's first advice rescued 37 of 56 under SGD 0.1 (LSUV 15; 53 of 53 under Adam), and 10 of 40 networks called healthy failed: the curve of that day saw too little of what a large
learning rate does to depth. It has been replaced by one with a way to fail of its own for that, fitted to the same training runs as before. Skip connections rescued 12 of 12 there, and left none below half; advice now counts
their step as that of three layers, and gives them to networks of unequal widths, too, at equal widths for the same parameters. The fourth plan is the third with this curve and this advice, its population drawn
afresh from ``default_rng(2030)``. Expected beforehand: as in the third.

RESULTS: summary.txt. Run on one core, anyinit 0.4.0; the first two with torch 2.15, the others with torch 2.14. The expectation is met under Adam in every plan; under SGD 0.1 it is missed by the
first and the third and met by the fourth (50 of 58), at SGD 0.03 met by the second. In the fourth 6 of 40 networks called healthy fail under SGD 0.1, 1 of 40 under Adam, as expected. Where a lower learning rate was the first advice, 32 of 34
started; where He initialisation alone was, 15 of 20. Since then the advice keeps the network's own initialiser where another is not clearly better. A single run of a
deep network at SGD 0.1 does not repeat in another stack: rounding changes its course.
"""

from __future__ import annotations

import argparse
import copy
import csv
import itertools
import math
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from evidence.calibration.tasks import Task, digits
from evidence.calibration.training import Stack, train
from torch import Tensor, nn

import initdiag

HERE = Path(__file__).parent
FIELDS = ("optimizer", "role", "network", "init", "hidden", "widths", "remedy", "action", "risk", "predicted", "first_loss", "loss", "score")  # fmt: skip
FLAGGED, HEALTHY = 60, 40
STEPS, BATCH = 400, 64


@dataclass(frozen=True)
class Plan:
    """The seed of a population, the learning rate of each optimiser, and where the runs are."""

    seed: int
    rates: dict[str, float]
    path: Path
    is_told: bool = False

    def diagnose(self, model: nn.Module, optimizer: str) -> initdiag.Report:
        told = {"lr": self.rates[optimizer], "loss": "classification"} if self.is_told else {}
        return initdiag.diagnose(model, method="none", optimizer=optimizer, **told)


@dataclass(frozen=True)
class Arm:
    """A network to be trained: what was done, the risk predicted, the learning rate if not the plan's, the factor on skip connections if there are any."""

    network: nn.Sequential
    action: str = ""
    risk: float = math.nan
    lr: float | None = None
    skip: float | None = None


class SkipStack(Stack):
    """Networks whose hidden layers but the first have skip connections, ``x + skip * layer(relu(x))``."""

    skip: float

    def __call__(self, x: Tensor) -> Tensor:
        first, *layers = zip(self.parameters[::2], self.parameters[1::2], strict=True)
        h = _linear(x.expand(len(self.values), -1, -1), *first)
        for w, b in layers[:-1]:
            h = h + self.skip * _linear(h.relu(), w, b)
        return _linear(h.relu(), *layers[-1])


def _linear(h: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return torch.baddbmm(b.unsqueeze(1), h, w.transpose(1, 2))


FIRST = Plan(2026, {"sgd": 0.1, "adam": 1e-3}, HERE / "runs.csv")
PROBED = (0, 2, 3, 10, 11, 17, 19, 22, 28)
SECOND = Plan(2027, {"sgd": 0.03}, HERE / "second.csv")
THIRD = Plan(2029, {"sgd": 0.1, "adam": 1e-3}, HERE / "third.csv", is_told=True)
FOURTH = Plan(2030, THIRD.rates, HERE / "fourth.csv", is_told=True)
PLANS = {"first": FIRST, "second": SECOND, "third": THIRD, "fourth": FOURTH}
REPAIRS = ("he_normal", "orthogonal", "rescale")
REMEDIES = (
    "as built",
    "first advice",
    "first initialiser",
    *REPAIRS,
    "skip connections",
    "lsuv",
    "anyinit",
    "anyinit empirical",
)
INITS: dict[str, Callable[[Tensor], object]] = {
    "he": lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"),
    "he x 0.67": lambda w: nn.init.normal_(w, std=math.sqrt(2 / w.shape[1]) * 0.67),
    "he x 1.5": lambda w: nn.init.normal_(w, std=math.sqrt(2 / w.shape[1]) * 1.5),
    "xavier": nn.init.xavier_normal_,
    "lecun": lambda w: nn.init.normal_(w, std=math.sqrt(1 / w.shape[1])),
}


def mlp(widths: list[int]) -> nn.Sequential:
    parts: list[nn.Module] = []
    for m, n in itertools.pairwise(widths):
        parts += [nn.Linear(m, n), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def linears(model: nn.Module) -> list[nn.Linear]:
    return [part for part in model.modules() if isinstance(part, nn.Linear)]


def hidden_widths(rng: np.random.Generator) -> list[int]:
    depth = int(rng.integers(4, 41))
    kind = rng.choice(["constant", "random", "alternating", "bottleneck"])
    low, high = sorted(int(n) for n in np.exp(rng.uniform(math.log(6), math.log(96), 2)))
    if kind == "random":
        return [int(n) for n in rng.integers(low, high + 1, depth)]
    if kind == "alternating":
        return [(high, low)[i % 2] for i in range(depth)]
    widths = [high] * depth
    if kind == "bottleneck":
        widths[int(rng.integers(depth))] = low
    return widths


def network(number: int, rng: np.random.Generator, plan: Plan) -> tuple[nn.Sequential, str]:
    """The next network of the population, and the name of its initialiser."""
    widths, init = [64, *hidden_widths(rng), 10], str(rng.choice(["torch default", *INITS]))
    torch.manual_seed(number + (0 if plan is FIRST else 1000 * plan.seed))
    model = mlp(widths)
    for linear in linears(model) if init in INITS else ():
        INITS[init](linear.weight)
        nn.init.zeros_(linear.bias)
    return model, init


def population(plan: Plan) -> Iterator[tuple[str, str, int, nn.Sequential, str, initdiag.Report]]:
    """Optimiser, role, number, network, initialiser and report, until every place is taken."""
    rng = np.random.default_rng(plan.seed)
    left = {
        (o, role): n for o in plan.rates for role, n in (("flagged", FLAGGED), ("healthy", HEALTHY))
    }
    for number in itertools.count():
        if not any(left.values()):
            return
        model, init = network(number, rng, plan)
        for optimizer in plan.rates:
            report = plan.diagnose(model, optimizer)
            role = (
                "healthy" if report.ok else "flagged" if report.verdict.is_at_risk else "not judged"
            )
            if left.get((optimizer, role)):
                left[optimizer, role] -= 1
                yield optimizer, role, number, model, init, report


def pasted(code: str, model: nn.Sequential) -> nn.Sequential:
    """The network with an advice's code pasted."""
    names = {"nn": nn, "w": torch.empty(2, 2), "b": torch.empty(2)}
    exec(code, names)
    changed = mlp(names["widths"]) if "widths" in names else copy.deepcopy(model)
    for linear in linears(changed):
        exec(code, {"nn": nn, "w": linear.weight, "b": linear.bias})
    return changed


@torch.no_grad()
def lsuv(model: nn.Sequential, x: Tensor) -> nn.Sequential:
    """Layer-sequential unit variance on one batch, ReLU nets: the rival."""
    for part in model:
        if isinstance(part, nn.Linear):
            nn.init.orthogonal_(part.weight)
            nn.init.zeros_(part.bias)
            for _ in range(10):
                spread = part(x).var().sqrt()
                if not spread > 0 or abs(spread - 1) < 0.01:
                    break
                part.weight.div_(spread)
        x = part(x)
    return model


def by_anyinit(model: nn.Sequential, x: Tensor, mode: str, seed: int) -> nn.Sequential | None:
    try:
        import anyinit
    except ImportError:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        anyinit.initialize(model, mode, x if mode == "empirical" else tuple(x.shape), seed=seed)
    return model


def advised(advice: initdiag.diagnosing.advice.Advice, model: nn.Sequential) -> Arm:
    """The network with an advice followed, its learning rate and its skip connections included."""
    lr = re.match(r"lr = (\S+);", advice.code)
    skip = re.search(r"x \+ (\S+) \* layer\(relu\(x\)\)", advice.code)
    numbers = (float(found[1]) if found else None for found in (lr, skip))
    return Arm(pasted(advice.code, model), advice.action, advice.risk_after, *numbers)


def skipping(model: nn.Sequential) -> Arm | None:
    """He weights and skip connections as advice writes them; None where widths differ."""
    hidden = [linear.out_features for linear in linears(model)[:-1]]
    if len(set(hidden)) > 1:
        return None
    he = pasted('nn.init.kaiming_normal_(w, nonlinearity="relu"); nn.init.zeros_(b)', model)
    return Arm(he, skip=float(f"{(len(hidden) - 1) ** -0.5:.3g}"))


def remedied(
    model: nn.Sequential, number: int, report: initdiag.Report, x: Tensor
) -> dict[str, Arm]:
    """By remedy: the network, what was done and the predicted risk."""
    torch.manual_seed(10_000 + number)
    found = {"as built": Arm(model)}
    advice = {
        "first advice": report.advice[:1],
        "first initialiser": [a for a in report.advice if a.is_snippet][:1],
    }
    for name, chosen in advice.items():
        found[name] = advised(chosen[0], model) if chosen else found["as built"]
    for method in REPAIRS:
        repaired = copy.deepcopy(model)
        initdiag.repair(repaired, method, seed=number)
        prediction = initdiag.predict(initdiag.trace(repaired))
        risk = initdiag.failure_risk(prediction, report.optimizer, report.lr, report.loss)
        found[method] = Arm(repaired, risk=risk)
    if (skips := skipping(model)) is not None:
        found["skip connections"] = skips
    found["lsuv"] = Arm(lsuv(copy.deepcopy(model), x))
    for name, mode in (("anyinit", "analytic"), ("anyinit empirical", "empirical")):
        changed = by_anyinit(copy.deepcopy(model), x, mode, number)
        if changed is not None:
            found[name] = Arm(changed)
    return found


def trained(
    arms: list[Arm], optimizer: str, rate: float, task: Task, number: int
) -> list[tuple[float, float, float]]:
    """First and last training loss and test accuracy of each; those of like widths are trained as one stack."""
    kinds: dict[tuple, list[int]] = {}
    for index, arm in enumerate(arms):
        kinds.setdefault((arm.skip, *(p.shape for p in arm.network.parameters())), []).append(index)
    found = [(math.nan,) * 3] * len(arms)
    for (skip, *_), places in kinds.items():
        chosen, k = [arms[i].network for i in places], len(places)
        rates = [arms[i].lr or rate for i in places]
        stack = Stack if skip is None else type("", (SkipStack,), {"skip": skip})
        trace = train(chosen, [optimizer] * k, rates, task, BATCH, number, (STEPS,), stack)
        for column, place in enumerate(places):
            found[place] = (float(trace.losses[0, column]), float(trace.losses[-1, column]), float(trace.scores[-1, column]))  # fmt: skip
    return found


def rows(plan: Plan, optimizer, role, number, model, init, report, task: Task) -> list[dict]:
    x = task.x[:256]
    arms = remedied(model, number, report, x) if role == "flagged" else {"as built": Arm(model)}
    runs = trained(list(arms.values()), optimizer, plan.rates[optimizer], task, number)
    hidden = [linear.out_features for linear in linears(model)[:-1]]
    return [
        dict(zip(FIELDS, (optimizer, role, number, init, len(hidden), f"{min(hidden)}..{max(hidden)}", name, arm.action,
                          f"{report.risk[optimizer]:.4f}", f"{arm.risk:.4f}", *(f"{v:.4g}" for v in run)), strict=True))
        for (name, arm), run in zip(arms.items(), runs, strict=True)
    ]  # fmt: skip


def healthy_reference(plan: Plan, task: Task) -> list[dict]:
    """Five 3 x 64 He networks under each optimiser."""
    found = []
    for optimizer, number in itertools.product(plan.rates, range(5)):
        torch.manual_seed(20_000 + number)
        model = pasted(
            'nn.init.kaiming_normal_(w, nonlinearity="relu"); nn.init.zeros_(b)',
            mlp([64, 64, 64, 64, 10]),
        )
        run = trained([Arm(model)], optimizer, plan.rates[optimizer], task, number)[0]
        values = (
            optimizer,
            "reference",
            number,
            "he",
            3,
            "64..64",
            "as built",
            "",
            "",
            "",
            *(f"{v:.4g}" for v in run),
        )
        found.append(dict(zip(FIELDS, values, strict=True)))
    return found


def run(plan: Plan) -> None:
    path = plan.path
    torch.set_num_threads(1)
    task = digits()
    done = (
        {(r["optimizer"], r["role"], r["network"]) for r in read(path)} if path.exists() else set()
    )
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if not done:
            writer.writeheader()
            writer.writerows(healthy_reference(plan, task))
        for optimizer, role, number, *rest in population(plan):
            if (optimizer, role, str(number)) not in done:
                writer.writerows(rows(plan, optimizer, role, number, *rest, task))
                file.flush()


def probe() -> None:
    """What made the second plan: networks of the first that its first advice did not rescue, the same advice at other rates (rates.csv)."""
    torch.set_num_threads(1)
    task, settings = digits(), (("sgd", 0.1), ("sgd", 0.03), ("sgd", 0.01), ("adam", 1e-3))
    with (HERE / "rates.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["network", "action", *(f"{optimizer} {rate:g}" for optimizer, rate in settings)]
        )
        for optimizer, role, number, model, _, report in population(FIRST):
            if number > max(PROBED):
                return
            if (optimizer, role) == ("sgd", "flagged") and number in PROBED:
                torch.manual_seed(10_000 + number)
                networks = [advised(report.advice[0], model) for _ in settings]
                runs = [
                    trained([n], o, rate, task, number)[0]
                    for n, (o, rate) in zip(networks, settings, strict=True)
                ]
                writer.writerow(
                    [number, report.advice[0].action, *(f"{run[2]:.3f}" for run in runs)]
                )


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def wilson(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval for a share (Wilson 1927)."""
    if trials == 0:
        return 0.0, 1.0
    p, scale = successes / trials, 1 + z * z / trials
    centre, half = (
        p + z * z / (2 * trials),
        z * math.sqrt(p * (1 - p) / trials + (z / (2 * trials)) ** 2),
    )
    return max((centre - half) / scale, 0.0), min((centre + half) / scale, 1.0)


def fails(row: dict[str, str], needed: float) -> bool:
    score, first, last = float(row["score"]), float(row["first_loss"]), float(row["loss"])
    return not (score >= needed and last < first)  # NaN fails


def share(k: int, n: int) -> str:
    low, high = wilson(k, n)
    return f"{k:3d} of {n:3d} = {k / n:4.0%} ({low:.0%} to {high:.0%})" if n else "none"


def summary(plan: Plan, found: list[dict[str, str]], chance: float) -> str:
    return "\n".join(
        line for optimizer in plan.rates for line in _lines(plan, optimizer, found, chance)
    )


def _lines(plan: Plan, optimizer: str, found: list[dict[str, str]], chance: float) -> Iterator[str]:
    own = [r for r in found if r["optimizer"] == optimizer]
    reference = [float(r["score"]) for r in own if r["role"] == "reference"]
    best = sum(reference) / len(reference)
    needed = chance + 0.1 * (best - chance)
    flagged, healthy = ([r for r in own if r["role"] == role] for role in ("flagged", "healthy"))
    built = [r for r in flagged if r["remedy"] == "as built"]
    failing = {r["network"] for r in built if fails(r, needed)}
    yield f"{optimizer} {plan.rates[optimizer]:g}: healthy networks reach {best:.1%}; fails: under {needed:.1%}"
    yield f"  flagged that fail as built   {share(len(failing), len(built))}"
    yield f"  called healthy that fail     {share(sum(fails(r, needed) for r in healthy), len(healthy))}"
    yield f"  {'remedy':18s}  {'rescued, of those that failed':33s}  of all flagged below half"
    for remedy in REMEDIES:
        arm = [r for r in flagged if r["remedy"] == remedy]
        if not arm:
            continue
        of_failing = [r for r in arm if r["network"] in failing]
        rescued = sum(not fails(r, needed) for r in of_failing)
        below = sum(not float(r["score"]) >= 0.5 for r in arm)
        yield f"  {remedy:18s}  {share(rescued, len(of_failing)):33s}  {share(below, len(arm))}"
    yield ""


def text(plans: tuple[Plan, ...] = tuple(PLANS.values())) -> str:
    """The committed summary."""
    head = "Remedies on the digits (study.py says what was done). Intervals: Wilson, 95 %.\n\n"
    names = {plan.path: f"Plan: {name}\n" for name, plan in PLANS.items()}
    return head + "\n".join(
        names[p.path] + summary(p, read(p.path), digits().chance) for p in plans if p.path.exists()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", choices=PLANS, default="first")
    parser.add_argument("--probe", action="store_true", help="what made the second plan")
    parser.add_argument("--summary", action="store_true", help="only write summary.txt")
    arguments = parser.parse_args()
    if arguments.probe:
        return probe()
    if not arguments.summary:
        run(PLANS[arguments.plan])
    (HERE / "summary.txt").write_text(text(), encoding="utf-8")
    print(text())


if __name__ == "__main__":
    main()

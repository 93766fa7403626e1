"""A search over deep MLPs at equal compute, with and without a filter that leaves out what is not likely to start training.

    pip install "initdiag[examples]" && python examples/architecture_search.py [--strategies random evolution]

PLAN (written and committed before the first run of the search)

*Tasks.* The scikit-learn digits (accuracy), and Friedman's first function with noise of variance 1 (`make_friedman1`, R^2): 10 inputs, of which 5 matter. The
risk's calibration has seen the digits, not the second task. The search goes by a validation set; the network it chooses is then looked at on a test set.

*Space.* ReLU networks of 2 to 40 hidden layers (uniform), all of one width of 8 to 128 (log-uniform); initialiser one of PyTorch's default, Xavier uniform, He
normal, orthogonal times sqrt 2 (biases 0 but under the default); SGD with momentum 0.9 or Adam; learning rate 0.001, 0.003 or 0.01. Depth and width are those of the
Optuna study of docs/recipes/trainers.md. Healthy networks train under all six settings on both tasks (tried beforehand on the eight of "failed", below, alone).

*Strategies.* Random search. Regularised evolution (Real et al. 2018, arXiv 1802.01548): the population is the last 8 trials; the best of 3 of them drawn at random is
mutated in one of its five choices. With the filter, a candidate of which `initdiag.accepts`, told optimiser, learning rate and loss, says that its risk is 0.1 or
more is drawn (or mutated) again. Two arms of a seed draw the same candidates and weights until the filter makes a difference.

*Why 0.1.* By `initdiag.screen` alone, without training: the space's mean risk is 0.33 (digits) and 0.36 (Friedman), and that of the networks below the threshold
0.090 and 0.098 for a threshold of 0.5, 0.041 and 0.048 for 0.2, 0.024 and 0.030 for 0.1. A half of the space is below 0.1.

*Compute.* A trial is 400 steps at batch size 64 and costs 400 times the multiply-adds of one example, whatever comes of it. A budget buys ``--trials`` networks of the
space's mean cost; a search ends at the first candidate that it does not buy. Seconds are processor time of one thread, the filter's included. A network that both arms
of a seed train is trained once, and counted in both.

*Failed.* As in the risk's calibration: the gain over chance (the commonest class; R^2 = 0) is under a tenth of the median gain of eight healthy networks (2 and 3 layers of 64
and 128, He and orthogonal) under the same optimiser and learning rate, or the training loss is not below its first value, or not a number.

*Outcome.* Share of trials that fail (Wilson's interval), with the filter against without: by how much it falls (bootstrap over searches). Best validation score of a search,
and the test score of that network: difference within seeds, with a t interval. Also the share of compute and of time that goes into failed trials, and
how many of the networks above the threshold that were trained did start after all: what the filter gives away. All intervals 95 %.

*Expected.* Random search, both tasks together: the share of failed trials falls by at least 80 %. Best validation score with the filter not worse: the interval of the
difference is above -0.01. Evolution: not worse either; its failures fall by at least 50 %, for without the filter it learns to avoid them by itself. The
evidence (``tests/evidence/search``) is the run of 10 seeds with ``--trials 30`` and both strategies; without options it is 5 seeds, 15 trials, and random search.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
import torch
from scipy import stats
from sklearn.datasets import load_digits, make_friedman1
from torch import nn

import initdiag

MAX_RISK, STEPS, BATCH = 0.1, 400, 64
DEPTHS, WIDTHS = (2, 40), (8, 128)
CHOICES = {
    "init": ("torch_default", "xavier_uniform", "he_normal", "orthogonal"),
    "optimizer": ("momentum", "adam"),
    "lr": (0.001, 0.003, 0.01),
}
POPULATION, TOURNAMENT = 8, 3
TASKS = ("digits", "friedman")
TRAIN_ROWS = 256  # of the training set, for the training loss


@dataclass(frozen=True)
class Task:
    """Inputs and targets of training, validation and test set."""

    loss: str
    x: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    y: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    outputs: int

    @property
    def chance(self) -> float:
        """Validation score of the best constant."""
        y = self.y[1]
        return float(y.bincount().max()) / len(y) if self.loss == "classification" else 0.0

    def loss_of(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        is_classes = self.loss == "classification"
        return (
            nn.functional.cross_entropy(outputs, y)
            if is_classes
            else nn.functional.mse_loss(outputs[:, 0], y)
        )

    def score(self, outputs: torch.Tensor, y: torch.Tensor) -> float:
        """Accuracy, or R^2."""
        if self.loss == "classification":
            return float((outputs.argmax(1) == y).float().mean())
        return float(1 - self.loss_of(outputs, y) / y.var(correction=0))


@functools.cache
def task(name: str) -> Task:
    if name == "digits":
        data = load_digits()
        x, y, loss = (data.data - data.data.mean()) / data.data.std(), data.target, "classification"
    else:
        x, y = make_friedman1(3000, 10, noise=1.0, random_state=0)
        x, y, loss = (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std(), "regression"
    order = np.random.default_rng(0).permutation(len(x))
    held = len(x) // 5
    inputs = torch.tensor(x[order], dtype=torch.float32)
    targets = torch.tensor(
        y[order], dtype=torch.int64 if loss == "classification" else torch.float32
    )
    sizes = [len(x) - 2 * held, held, held]
    return Task(
        loss, inputs.split(sizes), targets.split(sizes), 10 if loss == "classification" else 1
    )


@dataclass(frozen=True)
class Candidate:
    """A point of the space: what is searched."""

    depth: int
    width: int
    init: str
    optimizer: str
    lr: float

    def widths(self, of: Task) -> list[int]:
        return [of.x[0].shape[1], *[self.width] * self.depth, of.outputs]

    def cost(self, of: Task) -> int:
        """Multiply-adds of one example, times steps."""
        return STEPS * sum(a * b for a, b in itertools.pairwise(self.widths(of)))

    def accepted(self, of: Task) -> bool:
        """The filter."""
        settings = {"init": self.init, "optimizer": self.optimizer, "lr": self.lr, "loss": of.loss}
        return initdiag.accepts(self.widths(of), max_risk=MAX_RISK, **settings)

    def risk(self, of: Task) -> float:
        prediction = initdiag.predict(self.widths(of), init=self.init)
        return initdiag.failure_risk(prediction, self.optimizer, self.lr, of.loss)


def draw(rng: np.random.Generator) -> Candidate:
    """A candidate at random."""
    depth = int(rng.integers(DEPTHS[0], DEPTHS[1] + 1))
    width = round(math.exp(rng.uniform(*np.log(WIDTHS))))
    return Candidate(
        depth,
        width,
        **{name: values[rng.integers(len(values))] for name, values in CHOICES.items()},
    )


def mutate(parent: Candidate, rng: np.random.Generator) -> Candidate:
    """The parent with one of its choices changed: depth by up to 5, width by a factor of up to 1.6, another value of the rest."""
    name = str(rng.choice([field.name for field in fields(Candidate)]))
    if name == "depth":
        value = parent.depth + int(rng.choice([-1, 1])) * int(rng.integers(1, 6))
        return replace(parent, depth=min(max(value, DEPTHS[0]), DEPTHS[1]))
    if name == "width":
        return replace(
            parent,
            width=min(max(round(parent.width * 1.6 ** rng.uniform(-1, 1)), WIDTHS[0]), WIDTHS[1]),
        )
    others = [value for value in CHOICES[name] if value != getattr(parent, name)]
    return replace(parent, **{name: others[rng.integers(len(others))]})


def network(widths: list[int], init: str) -> nn.Sequential:
    parts: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layer = nn.Linear(a, b)
        parts += [layer, nn.ReLU()]
        if init != "torch_default":
            nn.init.zeros_(layer.bias)
        if init == "xavier_uniform":
            nn.init.xavier_uniform_(layer.weight)
        elif init == "he_normal":
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        elif init == "orthogonal":
            nn.init.orthogonal_(layer.weight, math.sqrt(2))
    return nn.Sequential(*parts[:-1])


@dataclass(frozen=True)
class Outcome:
    """Of one training run."""

    validation: float
    test: float
    learnt: bool  # the training loss is below its first value
    seconds: float


@functools.cache
def train(name: str, candidate: Candidate, seed: int) -> Outcome:
    begin, of = time.process_time(), task(name)
    torch.manual_seed(seed)
    model = network(candidate.widths(of), candidate.init)
    if candidate.optimizer == "adam":
        optimizer: torch.optim.Optimizer = torch.optim.Adam(
            model.parameters(), candidate.lr, fused=True
        )
    else:
        optimizer = torch.optim.SGD(model.parameters(), candidate.lr, momentum=0.9)
    x, y = of.x[0], of.y[0]
    with torch.no_grad():
        first = of.loss_of(model(x[:TRAIN_ROWS]), y[:TRAIN_ROWS])
    for rows in torch.randint(len(x), (STEPS, BATCH)):
        optimizer.zero_grad()
        of.loss_of(model(x[rows]), y[rows]).backward()
        optimizer.step()
    with torch.no_grad():
        last = of.loss_of(model(x[:TRAIN_ROWS]), y[:TRAIN_ROWS])
        validation, test = (of.score(model(of.x[part]), of.y[part]) for part in (1, 2))
    return Outcome(validation, test, bool(last < first), time.process_time() - begin)


@functools.cache
def least_score(name: str, optimizer: str, lr: float) -> float:
    """A tenth of the way from chance to healthy networks' validation score."""
    healthy = itertools.product((2, 3), (64, 128), ("he_normal", "orthogonal"))
    scores = [
        train(name, Candidate(d, w, init, optimizer, lr), 0).validation for d, w, init in healthy
    ]
    chance = task(name).chance
    return chance + 0.1 * (float(np.median(scores)) - chance)


@dataclass(frozen=True)
class Trial:
    """A row of the results; ``screened`` candidates were looked at for it, in ``screening`` seconds."""

    strategy: str
    task: str
    seed: int
    filtered: bool
    depth: int
    width: int
    init: str
    optimizer: str
    lr: float
    cost: int
    risk: float
    screened: int
    screening: float
    seconds: float
    validation: float
    test: float
    failed: bool

    @property
    def candidate(self) -> Candidate:
        return Candidate(*(getattr(self, field.name) for field in fields(Candidate)))


def evolve(trials: list[Trial], rng: np.random.Generator) -> Candidate:
    """Regularised evolution: the population is the last few trials."""
    population = trials[-POPULATION:]
    if len(population) < POPULATION:
        return draw(rng)
    chosen = [population[i] for i in rng.choice(POPULATION, TOURNAMENT, replace=False)]
    return mutate(
        max(chosen, key=lambda trial: np.nan_to_num(trial.validation, nan=-math.inf)).candidate, rng
    )


STRATEGIES: dict[str, Callable[[list[Trial], np.random.Generator], Candidate]] = {
    "random": lambda trials, rng: draw(rng),
    "evolution": evolve,
}


@functools.cache
def mean_cost(name: str) -> float:
    rng = np.random.default_rng(0)
    return float(np.mean([draw(rng).cost(task(name)) for _ in range(20_000)]))


def search(strategy: str, name: str, seed: int, filtered: bool, budget: float) -> list[Trial]:
    """One search, until the budget does not buy the next candidate."""
    of, rng = task(name), np.random.default_rng([2027, seed])
    trials: list[Trial] = []
    screened, begin = 0, time.process_time()
    while True:
        candidate = STRATEGIES[strategy](trials, rng)
        screened += 1
        if filtered and not candidate.accepted(of):
            continue
        screening = time.process_time() - begin
        if sum(trial.cost for trial in trials) + candidate.cost(of) > budget:
            return trials
        found = train(name, candidate, seed)
        least = least_score(name, candidate.optimizer, candidate.lr)
        failed = not (found.learnt and found.validation >= least)
        numbers = candidate.cost(of), candidate.risk(of), screened, screening
        scores = found.seconds, found.validation, found.test, failed
        trials.append(
            Trial(strategy, name, seed, filtered, *asdict(candidate).values(), *numbers, *scores)
        )
        screened, begin = 0, time.process_time()


def both_arms(arguments: tuple[int, str, str, float]) -> list[Trial]:
    """The searches of one seed, without and with the filter."""
    torch.set_num_threads(1)
    seed, strategy, name, trials = arguments
    budget = trials * mean_cost(name)
    return [
        trial
        for filtered in (False, True)
        for trial in search(strategy, name, seed, filtered, budget)
    ]


def wilson(failed: int, count: int) -> str:
    low, high = stats.binomtest(failed, count).proportion_ci(method="wilson")
    return f"{failed:3d} of {count:3d} = {failed / count:4.0%} ({low:.0%} to {high:.0%})"


@dataclass(frozen=True)
class Arms:
    """Searches by seed, without and with the filter."""

    trials: list[Trial]

    def arm(self, filtered: bool) -> list[Trial]:
        return [trial for trial in self.trials if trial.filtered == filtered]

    def searches(self, filtered: bool) -> list[list[Trial]]:
        """In the order of task and seed."""
        key = lambda trial: (trial.task, trial.seed)  # noqa: E731
        return [
            list(found) for _, found in itertools.groupby(sorted(self.arm(filtered), key=key), key)
        ]

    def reduction(self) -> tuple[float, float, float]:
        """By what share the share of failed trials falls, and its interval: pairs of searches are drawn again."""
        counts = np.array(
            [
                [(sum(t.failed for t in s), len(s)) for s in self.searches(filtered)]
                for filtered in (False, True)
            ]
        )
        chosen = np.random.default_rng(0).integers(counts.shape[1], size=(10_000, counts.shape[1]))
        failed, count = np.moveaxis(counts[:, chosen].sum(2), -1, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            again = 1 - (failed[1] / count[1]) / (failed[0] / count[0])
        failed, count = counts.sum(1).T
        low, high = np.nanpercentile(again, [2.5, 97.5])
        return 1 - (failed[1] / count[1]) / (failed[0] / count[0]), low, high

    def difference(self, score: str) -> tuple[float, float, float]:
        """Of the networks chosen on the validation set, with less without the filter: mean and t interval over seeds."""
        without, filtered = (
            [
                getattr(max(s, key=lambda t: np.nan_to_num(t.validation, nan=-math.inf)), score)
                for s in self.searches(f)
            ]
            for f in (False, True)
        )
        found = np.array(filtered) - np.array(without)
        half = stats.t.ppf(0.975, len(found) - 1) * stats.sem(found)
        return found.mean(), found.mean() - half, found.mean() + half

    def lines(self) -> list[str]:
        """What a person reads of them."""
        printed = []
        for filtered in (False, True):
            trials, searches = self.arm(filtered), self.searches(filtered)
            lost = [t for t in trials if t.failed]
            seconds, screening = sum(t.seconds for t in trials), sum(t.screening for t in trials)
            best = [
                max(s, key=lambda t: np.nan_to_num(t.validation, nan=-math.inf)) for s in searches
            ]
            printed += [
                f"  {'with the filter' if filtered else 'without'}",
                f"    failed trials        {wilson(len(lost), len(trials))}; by the risk {sum(t.risk for t in trials):.0f}",
                f"    lost on them         {sum(t.cost for t in lost) / sum(t.cost for t in trials):.0%} of the compute, "
                f"{sum(t.seconds for t in lost) / seconds:.0%} of the training time",
                f"    a search             {len(trials) / len(searches):.1f} trials, {(seconds + screening) / len(searches):.1f} s, of which "
                f"{screening / len(searches):.2f} s for {sum(t.screened for t in trials) / len(searches):.0f} candidates drawn and screened",
                f"    best of a search     {np.mean([t.validation for t in best]):.4f} on validation, {np.mean([t.test for t in best]):.4f} on test",
            ]
        reduction, low, high = self.reduction()
        printed.append(f"  failed trials fall by   {reduction:.0%} ({low:.0%} to {high:.0%})")
        for score in ("validation", "test"):
            printed.append(
                "  best, {:10s} with less without {:+.4f} ({:+.4f} to {:+.4f})".format(
                    score, *self.difference(score)
                )
            )
        above = [t for t in self.arm(False) if t.risk >= MAX_RISK]
        printed.append(
            f"  trained without the filter above its threshold, failed: {wilson(sum(t.failed for t in above), len(above))}"
        )
        return printed


def by_strategy(trials: list[Trial]) -> dict[str, Arms]:
    return {
        s: Arms([t for t in trials if t.strategy == s])
        for s in STRATEGIES
        if any(t.strategy == s for t in trials)
    }


def expected(arms: Arms) -> bool:
    """Whether the plan's expectations are met."""
    least = 0.8 if arms.trials[0].strategy == "random" else 0.5
    return bool(arms.reduction()[0] >= least and arms.difference("validation")[1] > -0.01)


def text(trials: list[Trial]) -> str:
    """What a person reads."""
    lines = []
    for strategy, arms in by_strategy(trials).items():
        tasks = list(dict.fromkeys(t.task for t in arms.trials))
        seeds = len({t.seed for t in arms.trials})
        for name in tasks:
            lines += [
                f"{strategy}, {name}, {seeds} seeds",
                *Arms([t for t in arms.trials if t.task == name]).lines(),
                "",
            ]
        if len(tasks) > 1:
            lines += [f"{strategy}, both tasks", *arms.lines()]
            lines += [f"  what the plan expects: {'met' if expected(arms) else 'MISSED'}", ""]
    return "\n".join(lines).rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=["random"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=15, help="that a budget buys, of mean cost")
    parser.add_argument(
        "--quick", action="store_true", help="2 seeds, 2 trials, the digits alone: too few to tell"
    )
    arguments = parser.parse_args()
    tasks, seeds, trials = list(TASKS), arguments.seeds, arguments.trials
    if arguments.quick:
        tasks, seeds, trials = ["digits"], 2, 2
    work = itertools.product(range(seeds), arguments.strategies, tasks, [trials])
    found = list(itertools.chain.from_iterable(map(both_arms, work)))
    print(text(found))
    if not arguments.quick:
        assert all(map(expected, by_strategy(found).values()))


if __name__ == "__main__":
    main()

"""Fully connected ReLU architectures from the literature, each under three initialisations: what their gradients look like.

python examples/published_architectures.py               # a table for the terminal
python examples/published_architectures.py --markdown    # the same for docs/published-architectures.md

Widths are the papers'; where a network is more than a chain, its chain parts are listed. Nothing here loads torch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from initdiag import Architecture, Report
from initdiag.diagnosing.diagnose import diagnose_architecture

INITIALISERS = {"torch_default": "PyTorch default", "he_normal": "He", "orthogonal": "orthogonal"}
COLUMNS = (
    "architecture",
    "widths",
    "initialisation",
    "drift",
    "fluctuation",
    "dead",
    "verdict (SGD)",
)


@dataclass(frozen=True)
class Published:
    """A chain from a paper: where it stands, its widths, the activation of its last layer, dropout after hidden layers."""

    name: str
    source: str
    widths: tuple[int, ...]
    output: str = "linear"
    dropout: float = 0.0


def hanin_rolnick(name: str, hidden: list[int]) -> Published:
    return Published(
        f"Hanin-Rolnick, {name}",
        "Hanin and Rolnick 2018, arXiv 1803.01719 (here 20 hidden layers)",
        (784, *hidden, 10),
    )


PUBLISHED = (
    Published(
        "deep autoencoder",
        "Hinton and Salakhutdinov 2006, Science 313:504 (logistic units there)",
        (784, 1000, 500, 250, 30, 250, 500, 1000, 784),
    ),
    Published(
        "rectifier MLP", "Glorot, Bordes and Bengio 2011, AISTATS", (784, 1000, 1000, 1000, 10)
    ),
    Published(
        "AlexNet, classifier", "Krizhevsky et al. 2012, NIPS", (9216, 4096, 4096, 1000), dropout=0.5
    ),
    Published(
        "dropout MLP",
        "Srivastava et al. 2014, JMLR 15:1929",
        (784, 1024, 1024, 1024, 10),
        dropout=0.5,
    ),
    Published(
        "VGG, classifier",
        "Simonyan and Zisserman 2015, arXiv 1409.1556",
        (25088, 4096, 4096, 1000),
        dropout=0.5,
    ),
    Published("DQN, head", "Mnih et al. 2015, Nature 518:529", (3136, 512, 18)),
    Published(
        "DDPG, actor (17 -> 6)", "Lillicrap et al. 2016, arXiv 1509.02971", (17, 400, 300, 6)
    ),
    Published("TD3, critic (17 + 6)", "Fujimoto et al. 2018, arXiv 1802.09477", (23, 400, 300, 1)),
    Published("SAC, critic (17 + 6)", "Haarnoja et al. 2018, arXiv 1812.05905", (23, 256, 256, 1)),
    Published(
        "Wide & Deep, deep part", "Cheng et al. 2016, arXiv 1606.07792", (1200, 1024, 512, 256, 1)
    ),
    Published(
        "random labels, MLP 3 x 512",
        "Zhang et al. 2017, arXiv 1611.03530",
        (2352, 512, 512, 512, 10),
    ),
    Published("NCF, MLP tower", "He et al. 2017, arXiv 1708.05031", (32, 16, 8, 1)),
    Published(
        "DLRM, bottom", "Naumov et al. 2019, arXiv 1906.00091; MLPerf", (13, 512, 256, 128), "relu"
    ),
    Published(
        "DLRM, top", "Naumov et al. 2019, arXiv 1906.00091; MLPerf", (479, 1024, 1024, 512, 256, 1)
    ),
    Published(
        "NeRF, before the skip",
        "Mildenhall et al. 2020, arXiv 2003.08934",
        (60, *[256] * 5),
        "relu",
    ),
    Published(
        "NeRF, after the skip",
        "Mildenhall et al. 2020, arXiv 2003.08934",
        (316, *[256] * 3),
        "relu",
    ),
    hanin_rolnick("30, 10 in turn", [30, 10] * 10),
    hanin_rolnick("30s, then 10s", [30] * 10 + [10] * 10),
    hanin_rolnick("10s, then 30s", [10] * 10 + [30] * 10),
    hanin_rolnick("constant 15", [15] * 20),
    hanin_rolnick("constant 20", [20] * 20),
)


def judged(published: Published, init: str) -> Report:
    """What theory alone says of the architecture under one initialisation, the same on every layer."""
    architecture = Architecture.from_widths(
        published.widths, output=published.output, init=init, dropout=published.dropout
    )
    return diagnose_architecture(architecture, target=f"{published.name}, {INITIALISERS[init]}")


def rows() -> Iterator[tuple[Published, str, Report]]:
    for published in PUBLISHED:
        for init in INITIALISERS:
            yield published, init, judged(published, init)


def cells(published: Published, init: str, report: Report) -> tuple[str, ...]:
    """One line of the table: drift and fluctuation are the mean and variance of ``ln[(n_0/n_L) ||Ju||^2]``."""
    prediction = report.prediction
    dead = prediction.dead_probability
    numbers = (
        f"{prediction.rms_gain_log_mean:+.2f}",
        f"{prediction.log_variance:.3f}",
        f"{dead:.1g}" if dead > 1e-12 else "0",
    )
    return (
        published.name,
        folded(published.widths),
        INITIALISERS[init],
        *numbers,
        report.verdict.value,
    )


def folded(widths: tuple[int, ...]) -> str:
    """``784-10x(30-10)-10`` and the like: equal neighbours counted, a long alternation too."""
    if (
        len(widths) > 12
        and widths[1:3] * ((len(widths) - 2) // 2) == widths[1:-1]
        and widths[1] != widths[2]
    ):
        return f"{widths[0]}-{(len(widths) - 2) // 2}x({widths[1]}-{widths[2]})-{widths[-1]}"
    runs: list[list[int]] = []
    for n in widths:
        if runs and runs[-1][1] == n:
            runs[-1][0] += 1
        else:
            runs.append([1, n])
    return "-".join(f"{count}x{n}" if count > 1 else str(n) for count, n in runs)


def terminal_table(found: list[tuple[Published, str, Report]]) -> Table:
    table = Table(*COLUMNS, title="Published architectures, at initialisation")
    for published, init, report in found:
        name, widths, *rest = cells(published, init, report)
        is_first = init == next(iter(INITIALISERS))
        table.add_row(
            *(name, widths) if is_first else ("", ""), *rest, end_section=init == "orthogonal"
        )
    return table


def markdown_table(found: list[tuple[Published, str, Report]]) -> str:
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|---|---|--:|--:|--:|---|"]
    lines += ["| " + " | ".join(cells(*row)) + " |" for row in found]
    sources = dict.fromkeys(f"{p.name.partition(',')[0]}: {p.source}" for p in PUBLISHED)
    return "\n".join([*lines, "", *(f"- {source}" for source in sources)])


def check_claims(found: list[tuple[Published, str, Report]]) -> None:
    """What the table shows, held to."""
    reports = {(p.name, init): r for p, init, r in found}
    for p in PUBLISHED:
        default, he, haar = (reports[p.name, init].prediction for init in INITIALISERS)
        assert default.rms_gain_log_mean < he.rms_gain_log_mean, (
            "PyTorch's default is a factor 6 a layer smaller"
        )
        assert haar.log_variance < he.log_variance, "orthogonal weights have no radius to fluctuate"
    four = [
        p.name
        for p in PUBLISHED
        if p.name.startswith("Hanin-Rolnick") and p.name != "Hanin-Rolnick, constant 20"
    ]
    betas = [reports[name, "he_normal"].prediction.beta for name in four]
    assert max(betas) - min(betas) < 1e-9, (
        "sum 1/n is the same for four of Hanin and Rolnick's five"
    )
    assert reports["Hanin-Rolnick, constant 20", "he_normal"].prediction.beta < min(betas)
    assert {reports[name, "torch_default"].verdict.value for name in four} == {"VANISHING"}


def main(arguments: list[str]) -> None:
    found = list(rows())
    check_claims(found)
    if arguments == ["--markdown"]:
        print(markdown_table(found))
    else:
        Console(width=max(Console().width, 125)).print(terminal_table(found))


if __name__ == "__main__":
    main(sys.argv[1:])

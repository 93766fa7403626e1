"""How often honest weights are refused for any hypothesis: networks of the eight
initialisers of the recognition study, 2 to 9 matrices of widths 4 to 64.

PYTHONPATH=tests python -m evidence.dependence.study 250      # so many of each initialiser
"""

from __future__ import annotations

import sys
from collections import Counter

from evidence.recognition.study import DRAWS, Network

from initdiag.tracing.weights import weight_laws


def failed(population: str, seed: int) -> set[str]:
    """The hypotheses that an honest network fails."""
    matrices = Network.drawn(population, seed).matrices
    laws = weight_laws([(str(i), w) for i, w in enumerate(matrices)])
    return {name for law in laws for name in law.failed}


def main(count: int) -> None:
    refused: Counter[str] = Counter()
    for population in DRAWS:
        for seed in range(count):
            if names := failed(population, seed):
                refused[population] += 1
                print(population, seed, sorted(names))
    print(f"{count * len(DRAWS)} networks, {sum(refused.values())} refused: {dict(refused)}")


if __name__ == "__main__":
    main(int(sys.argv[1]))

"""How often the first step's gradient norms lie in their predicted bands: writes BANDS.md.

80 chains (2 to 12 hidden layers of 16 to 128 units; ReLU, tanh or GELU; the default, He or Xavier
weights), cross entropy on 4 random classes, batches of 1, 8 or 64 normal rows; each drawn once.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import torch
from study import CLASSES, INPUTS, he, mlp, trial_of, xavier
from torch import nn

NETWORKS = 80
BATCHES = (1, 8, 64)
ACTS = {"ReLU": nn.ReLU, "tanh": nn.Tanh, "GELU": nn.GELU}
INITS = {"default": None, "He": he(), "Xavier": xavier()}


def main():
    torch.set_num_threads(1)
    rng, counts = np.random.default_rng(7), Counter()
    for number in range(NETWORKS):
        torch.manual_seed(number)
        batch, act = int(rng.choice(BATCHES)), str(rng.choice(list(ACTS)))
        depth, width = int(rng.integers(2, 13)), int(2 ** rng.uniform(4, 7))
        sizes = [INPUTS, *[width] * depth, CLASSES]
        model = mlp(sizes, ACTS[act], INITS[str(rng.choice(list(INITS)))])
        x, y = torch.randn(batch, INPUTS), torch.arange(batch) % CLASSES
        how = {"optimizer": "sgd", "lr": 0.1, "loss": "classification"}
        for layer in trial_of(model, x, y, how, steps=1).layers:
            place = "inside"
            if np.isnan(layer.low):
                place = "no band"
            elif not layer.low <= layer.log_gradients[0] <= layer.high:
                place = "below" if layer.log_gradients[0] < layer.low else "above"
            counts[batch, place] += 1
            counts["all", place] += 1
    lines = [
        "# First-step gradient norms in their predicted bands",
        "",
        f"Made by `python tests/evidence/trial/bands.py`: {NETWORKS} networks, each layer of each.",
        "The band runs from the law's 5 % quantile, rows at right angles, to its 95 % quantile, rows alike.",
        "For a batch of one row it is the law's own 90 % band.",
        "",
        "| batch | inside | below | above | no band |",
        "|---|---|---|---|---|",
    ]
    for batch in (*BATCHES, "all"):
        found = [counts[batch, place] for place in ("inside", "below", "above", "no band")]
        known = sum(found[:3])
        lines.append(
            f"| {batch} | {found[0]} ({found[0] / known:.1%}) | {found[1]} | {found[2]} | {found[3]} |"
        )
    (Path(__file__).parent / "BANDS.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

"""A layer of width 8,192 with a ReLU: measured by products with its Jacobian, which alone would take 512 MiB, against the limit.

python tests/evidence/spectrum/large.py | tee tests/evidence/spectrum/large.txt
"""

from __future__ import annotations

import resource
import sys
import time

import torch
from torch import nn

import initdiag

WIDTH = 8192


def peak() -> float:
    """Return the process's largest resident memory so far, in GiB."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (2**30 if sys.platform == "darwin" else 2**20)


if __name__ == "__main__":
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU())
    nn.init.kaiming_normal_(model[0].weight, nonlinearity="relu")
    nn.init.zeros_(model[0].bias)
    before = peak()
    start = time.process_time()
    found = initdiag.measure_spectrum(model, draws=16)
    spent = time.process_time() - start
    spectrum = initdiag.predict_spectrum([WIDTH, WIDTH], init="he_normal", output="relu")
    print(f"width {WIDTH}, 16 draws, seed 0, 64 Lanczos steps: {spent:.0f} s of CPU")
    print(
        f"peak memory: {before:.2f} GiB with the model, {peak():.2f} GiB after (a float64 replica of its weights is 0.50 GiB)"
    )
    for order, (m, se, limit) in enumerate(
        zip(found.moments(), found.moments_se(), spectrum.moments(4), strict=True), 1
    ):
        print(f"moment {order}: {m:.4f} +- {se:.4f}, limit {limit:.4f}")
    print(
        f"zero mass: {found.zero_mass:.4f} +- {found.zero_mass_se:.4f}, limit {spectrum.zero_mass:.4f}"
    )
    print(
        f"ln of the largest: {', '.join(f'{v:.4f}' for v in found.log_largest)}, limit {spectrum.log_upper_edge:.4f}"
    )

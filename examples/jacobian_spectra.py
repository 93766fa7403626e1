"""Spectra of deep Jacobians: predicted curve on measured histogram, and what a better-conditioned Jacobian is worth in training.

    pip install "initdiag[examples]" && python examples/jacobian_spectra.py [--figure spectra.png]

*Spectra.* Three networks, 1 to 16 square layers of 400: ReLU with Gaussian weights, ReLU with orthogonal ones, hard tanh with orthogonal ones.
An input is run forward, the Jacobian multiplied out, and its singular values are compared with `initdiag.predict_spectrum` by the Kolmogorov-
Smirnov distance over all of them, zeros included. Twice: with the gates that the input finds, whose number fluctuates (5 % a layer at
this width, which is most of the distance), and with exactly the expected number of gates open.

*Training* (J. Pennington, S. Schoenholz and S. Ganguli, arXiv 1711.04735). 24 hidden layers of 64 with hard tanh on the scikit-learn digits: orthogonal
against Gaussian weights of the same variance, so that both have the same mean square singular value and differ in how it is spread. What
is counted is SGD steps until the training loss (running mean over batches) is below 0.5, at each of three learning rates, over
six seeds, with a 95 % interval for the ratio.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys

import numpy as np
from scipy import stats

import initdiag
from initdiag.spectrum.conditions import conditions_of

WIDTH, DRAWS, DEPTHS = 400, 4, (1, 2, 4, 8, 16)

NETWORKS = {
    "ReLU, Gaussian": {"init": "he_normal", "activation": "relu", "output": "relu"},
    "ReLU, orthogonal": {"init": "orthogonal", "activation": "relu", "output": "relu"},
    "hard tanh, orthogonal": {
        "init": "orthogonal",
        "gain": 0.5**0.5,
        "activation": "hardtanh",
        "output": "hardtanh",
    },
}

HIDDEN, TRAINED_WIDTH, SEEDS, RATES, BATCH, TARGET, MOST_STEPS = (
    24,
    64,
    6,
    (0.01, 0.03, 0.1),
    128,
    0.5,
    400,
)


def weights(name, width, rng):
    """A square matrix: entries of variance 2/width, or a Haar matrix times sqrt 2 (ReLU) or 1 (hard tanh)."""
    gaussian = rng.standard_normal((width, width))
    if "Gaussian" in name:
        return math.sqrt(2 / width) * gaussian
    q, r = np.linalg.qr(gaussian)
    return math.sqrt(2 if "ReLU" in name else 1) * q * np.sign(np.diag(r))


def gates(name, h, count):
    """Which units have slope 1; with ``count``, that many, the nearest to being open."""
    height = h if "ReLU" in name else 1 - np.abs(h)
    return height > 0 if count is None else np.argsort(np.argsort(-height)) < count


def singular_values(name, width, rng, counts):
    """Depth -> singular values of one network's explicit Jacobian at a random input of unit mean square."""
    x = rng.standard_normal(width)
    x *= math.sqrt(width) / np.linalg.norm(x)
    jacobian, found = np.eye(width), {}
    for depth in range(1, max(DEPTHS) + 1):
        w = weights(name, width, rng)
        h = w @ x
        jacobian = gates(name, h, counts and counts[depth - 1])[:, None] * (w @ jacobian)
        x = np.maximum(h, 0) if "ReLU" in name else np.clip(h, -1, 1)
        if depth in DEPTHS:
            found[depth] = np.linalg.svd(jacobian, compute_uv=False)
    return found


def measured(name, width, spectra, *, balanced):
    """Depth -> pooled singular values of a few networks, with the gates as they come or with their expected number."""
    rng = np.random.default_rng(0)
    counts = (
        [round(factor.open_count) for factor in spectra[max(DEPTHS)].factors] if balanced else None
    )
    draws = [singular_values(name, width, rng, counts) for _ in range(DRAWS)]
    return {depth: np.concatenate([draw[depth] for draw in draws]) for depth in DEPTHS}


def ks_distance(sigma, spectrum):
    """Largest distance of the two distribution functions over all singular values; where there are atoms, from either side."""
    logs = np.sort(2 * np.log(sigma[sigma > 1e-9 * sigma.max()]))
    for atom in spectrum.atoms:
        logs[np.abs(logs - atom.log_eigenvalue) < 1e-6] = atom.log_eigenvalue
    distances = []
    for side, shift in (("right", 0.0), ("left", 1e-6)):
        above = (len(logs) - np.searchsorted(logs, logs, side)) / len(sigma)
        distances.append(
            np.abs(above - (1 - spectrum.zero_mass) * spectrum.law.sf(logs - shift)).max()
        )
    return max(distances)


def predictions(name, width):
    return {
        depth: initdiag.predict_spectrum([width] * (depth + 1), **NETWORKS[name])
        for depth in DEPTHS
    }


def compare_spectra():
    """Print and check the distances; return what a figure shows: name -> depth -> (spectrum, singular values)."""
    print(
        f"KS distance of {DRAWS} networks' singular values to the prediction, by depth (width {WIDTH})\n"
    )
    print(f"{'':48s}" + "".join(f"{depth:>9d}" for depth in DEPTHS))
    shown = {}
    for name in NETWORKS:
        spectra = predictions(name, WIDTH)
        sigma = {
            balanced: measured(name, WIDTH, spectra, balanced=balanced)
            for balanced in (False, True)
        }
        for balanced, limit in ((False, 0.06), (True, 0.01)):
            distances = [ks_distance(sigma[balanced][depth], spectra[depth]) for depth in DEPTHS]
            label = f"{name}, {'expected number of gates' if balanced else 'gates as they come'}"
            print(f"{label:48s}" + "".join(f"{distance:9.4f}" for distance in distances))
            assert max(distances) < limit, label
        check_width(name, [ks_distance(sigma[True][depth], spectra[depth]) for depth in DEPTHS])
        shown[name] = {depth: (spectra[depth], sigma[False][depth]) for depth in DEPTHS}
    print_conditions(shown)
    return shown


def check_width(name, wide):
    """The distance falls with the width, for the same number of singular values."""
    spectra = predictions(name, WIDTH // 4)
    narrow = measured(name, WIDTH // 4, spectra, balanced=True)
    distances = [ks_distance(narrow[depth], spectra[depth]) for depth in DEPTHS]
    assert np.mean(distances) > 1.5 * np.mean(wide), (
        f"{name}: {distances} at width {WIDTH // 4}, {wide} at {WIDTH}"
    )


def print_conditions(shown):
    """Orthogonal weights help, and only an activation that keeps its gates open lets them make an isometry."""
    print(
        f"\nAt depth {DEPTHS[-1]}, predicted (measured): relative variance of sigma^2, and share of sigma > 0 within a decade\n"
    )
    variances = []
    for name, by_depth in shown.items():
        spectrum, sigma = by_depth[DEPTHS[-1]]
        found = conditions_of(spectrum)
        positive = sigma[sigma > 1e-9 * sigma.max()]
        share = max(np.mean((positive >= s) & (positive <= 10 * s)) for s in positive[::4])
        variance = len(sigma) * np.sum(sigma**4) / np.sum(sigma**2) ** 2 - 1
        print(
            f"{name:24s}{found.isometry_distance:8.2f} ({variance:.2f}){found.share_within_decade:10.0%} ({share:.0%})"
        )
        assert abs(share - found.share_within_decade) < 0.05
        variances.append(found.isometry_distance)
    assert variances == sorted(variances, reverse=True)
    assert variances[2] < 2 < 10 < variances[1]


def network(torch, orthogonal, seed):
    """Hard tanh; every entry has variance 1/fan_in either way."""
    torch.manual_seed(seed)
    sizes, parts = [64, *[TRAINED_WIDTH] * HIDDEN, 10], []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layer = torch.nn.Linear(fan_in, fan_out)
        torch.nn.init.zeros_(layer.bias)
        if orthogonal:
            torch.nn.init.orthogonal_(layer.weight, math.sqrt(max(fan_in, fan_out) / fan_in))
        else:
            torch.nn.init.normal_(layer.weight, 0, fan_in**-0.5)
        parts += [layer, torch.nn.Hardtanh()]
    return torch.nn.Sequential(*parts[:-1])


def steps_to_target(torch, data, orthogonal, rate, seed):
    """SGD steps until the running mean of the batches' loss is below ``TARGET``; ``MOST_STEPS`` if it never is."""
    x, y = data
    model = network(torch, orthogonal, seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(seed)
    mean = math.log(10)
    for step in range(MOST_STEPS):
        rows = torch.randint(len(x), (BATCH,), generator=generator)
        loss = torch.nn.functional.cross_entropy(model(x[rows]), y[rows])
        mean = 0.9 * mean + 0.1 * loss.item()
        if mean < TARGET:
            return step
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return MOST_STEPS


def compare_training():
    """Print and check how many times more steps the Gaussian networks need."""
    import torch
    from sklearn.datasets import load_digits

    torch.set_num_threads(1)
    digits = load_digits()
    x = torch.tensor(digits.data, dtype=torch.float32)
    data = (x - x.mean()) / x.std(), torch.tensor(digits.target)
    for orthogonal in (False, True):
        found = conditions_of(
            initdiag.predict_spectrum(initdiag.trace(network(torch, orthogonal, 0)))
        )
        kind = "orthogonal" if orthogonal else "Gaussian"
        print(
            f"{kind:12s}(1/n) sum sigma^2 {math.exp(found.log_mean_square):.2f}, relative variance {found.isometry_distance:.2f}"
        )
    print(f"\nSGD steps to a training loss of {TARGET}, median over {SEEDS} seeds\n")
    print(
        f"{'learning rate':16s}{'Gaussian':>10s}{'orthogonal':>12s}{'ratio':>8s}{'95 % interval':>18s}"
    )
    best = {False: math.inf, True: math.inf}
    for rate in RATES:
        steps = {
            kind: np.array(
                [steps_to_target(torch, data, kind, rate, seed) for seed in range(SEEDS)]
            )
            for kind in best
        }
        low, ratio, high = interval(np.log(steps[False] / steps[True]))
        medians = {kind: float(np.median(found)) for kind, found in steps.items()}
        best = {kind: min(best[kind], medians[kind]) for kind in best}
        print(
            f"{rate:<16g}{medians[False]:10.0f}{medians[True]:12.0f}{ratio:8.2f}{low:11.2f} to {high:.2f}"
        )
        assert low > 1.3, f"learning rate {rate}: {low}"
    print(f"\neach at its best learning rate: {best[False]:.0f} against {best[True]:.0f} steps")
    assert best[False] > 1.3 * best[True]


def interval(logs):
    """Geometric mean with its 95 % interval by Student's t."""
    mean, half = logs.mean(), stats.t.ppf(0.975, len(logs) - 1) * stats.sem(logs)
    return np.exp([mean - half, mean, mean + half])


def draw(shown, path):
    """Densities of ln sigma: histograms of the networks as they are, curves of the prediction, atoms as lines with their mass."""
    from matplotlib.figure import Figure

    depths = DEPTHS[1:]
    figure = Figure(figsize=(3.2 * len(depths), 2.3 * len(shown)), layout="constrained")
    axes = figure.subplots(len(shown), len(depths), sharex="row", squeeze=False)
    for row, (name, by_depth) in zip(axes, shown.items(), strict=True):
        for ax, depth in zip(row, depths, strict=True):
            panel(ax, *by_depth[depth])
            ax.set_title(f"{name}, depth {depth}", fontsize=9)
    for ax in axes[-1]:
        ax.set_xlabel("singular value")
    figure.savefig(path, dpi=120)
    print(f"figure: {path}")


def panel(ax, spectrum, sigma):
    low, high = (
        max(float(spectrum.law.ppf(0.002)) / 2, spectrum.log_upper_edge / 2 - 9),
        spectrum.log_upper_edge / 2,
    )
    edges = np.linspace(low, high, 46)
    logs = np.log(sigma[sigma > 1e-9 * sigma.max()])
    for atom in spectrum.atoms:
        logs = logs[np.abs(logs - atom.log_eigenvalue / 2) > 1e-6]
        ax.axvline(
            math.exp(atom.log_eigenvalue / 2),
            color="C3",
            lw=1.5,
            label=f"{100 * atom.mass:.0f} % at one value",
        )
    heights = np.histogram(logs, edges)[0] / (len(sigma) * (edges[1] - edges[0]))
    ax.stairs(heights, np.exp(edges), fill=True, color="0.8")
    grid = np.linspace(low, high + 0.2, 800)
    zeros = f"{100 * spectrum.zero_mass:.0f} % are 0"
    ax.plot(np.exp(grid), 2 * spectrum.density(2 * grid), color="C0", lw=1.2, label=zeros)
    ax.set(xscale="log", yticks=[], ylim=(0, 1.3 * heights.max()))
    ax.legend(fontsize=7, loc="upper left", frameon=False, handlelength=1)


def main():
    parser = argparse.ArgumentParser(
        description="Predicted and measured Jacobian spectra, and training on digits."
    )
    parser.add_argument("--figure", metavar="PATH", help="also draw the spectra (needs matplotlib)")
    path = parser.parse_args().figure
    if path is not None:
        try:
            import matplotlib  # noqa: F401
        except ImportError:
            sys.exit("--figure needs matplotlib: pip install matplotlib")
    shown = compare_spectra()
    if path is not None:
        draw(shown, path)
    print()
    compare_training()


if __name__ == "__main__":
    main()

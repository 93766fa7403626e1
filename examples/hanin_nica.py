"""Hanin and Nica 2018 (arXiv 1812.05994) reproduced: explicit products of random matrices, their theorems, and the exact law.

Products D W of square matrices, iid entries, gates open with probability p, every layer of mean gain 1; X = ||Ju||^2 for a unit vector u.

1. Log-normality: ln X is nearly N(-beta/2, beta), beta = (3/p - 1) sum 1/n (5 sum 1/n for ReLU, p = 1/2).
2. Variance: beta is the leading order. The exact law holds at every width and depth.
3. Kolmogorov distance of the exact law to the log-normal: it falls like n^(-1/2), the paper's rate of the bound like n^(-2/5).
4. Moments: E X^k is nearly exp(k (k - 1) beta/2); the exact law says how far off that is.
5. Any p; 6. any symmetric entries with four moments: beta is the same but for the first layer's kurtosis term.

Run it: python examples/hanin_nica.py (a few seconds; numpy, scipy and initdiag), --figure hanin_nica.png draws it (matplotlib).
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
from scipy import stats

from initdiag import Architecture, predict
from initdiag.law.hanin_nica import kolmogorov_rate, ks_distance, log_moment
from initdiag.network.architecture import Activation, Layer, WeightLaw

ENTRIES = {
    "normal": (3.0, lambda rng, shape: rng.standard_normal(shape, dtype=np.float32)),
    "uniform": (
        9 / 5,
        lambda rng, shape: (rng.random(shape, dtype=np.float32) - 0.5) * np.float32(math.sqrt(12)),
    ),
    "Rademacher": (1.0, lambda rng, shape: 2.0 * rng.integers(0, 2, shape, dtype=np.int8) - 1.0),
    "Laplace": (6.0, lambda rng, shape: rng.laplace(0.0, math.sqrt(0.5), shape)),
}
"""Name -> (kurtosis, sampler of entries of variance 1)."""

WIDTHS, DEPTHS, DRAWS = (8, 16, 32, 64), (5, 10, 20), 2000


def chain(width, depth, p=0.5, entries="normal"):
    """The architecture of `log_gains`: a gate that is 1/p with probability p (linear, dropout), weights of variance p/n."""
    family = "normal" if entries == "normal" else "other"
    weight = WeightLaw(family, p / width, ENTRIES[entries][0])
    gate = Activation("linear", dropout=1 - p)
    return Architecture(
        tuple(Layer(str(i), width, width, weight, gate) for i in range(depth)), width, width
    )


def log_gains(width, depth, rng, p=0.5, entries="normal", draws=DRAWS):
    """ln||Ju||^2 after every layer, shape (depth, draws): explicit matrices D W, entries of variance 1/(p n), u uniform on the sphere."""
    sample = ENTRIES[entries][1]
    found = []
    for size in [draws // 8] * 8:
        x = rng.standard_normal((size, width, 1), dtype=np.float32)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        logs = []
        for _ in range(depth):
            w = sample(rng, (size, width, width)).astype(np.float32, copy=False)
            x = (
                w
                @ x
                * ((rng.random((size, width, 1)) < p) / math.sqrt(p * width)).astype(np.float32)
            )
            with np.errstate(divide="ignore"):
                logs.append(np.log(np.sum(x.astype(np.float64) ** 2, axis=(1, 2))))
        found.append(logs)
    return np.concatenate(found, axis=1)


def moments(logs):
    """Mean, variance and their standard errors of the draws that are not dead."""
    alive = logs[np.isfinite(logs)]
    m, v = alive.mean(), alive.var(ddof=1)
    return (
        m,
        math.sqrt(v / alive.size),
        v,
        math.sqrt((np.mean((alive - m) ** 4) - v**2) / alive.size),
    )


def agree(found, se, expected, what, slack=0.0):
    assert abs(found - expected) < 4 * se + slack * abs(expected), (
        f"{what}: {found} +- {se}, expected {expected}"
    )


def log_normality(samples):
    """The deepest of the widest networks, standardised as the theorem says; with the sign of beta/2 wrong it is far off."""
    n, depth = WIDTHS[-1], DEPTHS[-1]
    logs, pred = samples[n][depth - 1], predict(chain(n, depth))
    z = (logs + pred.beta / 2) / math.sqrt(pred.beta)
    found, wrong = (stats.kstest(y, "norm").statistic for y in (z, z - math.sqrt(pred.beta)))
    exact = stats.kstest(logs, pred.law.cdf)
    print(
        f"1. n = {n}, depth {depth}: KS distance to N(-beta/2, beta) {found:.3f}, to N(+beta/2, beta) {wrong:.3f};"
    )
    print(
        f"   of the exact law to N(-beta/2, beta) {ks_distance(pred):.3f}; of the sample to the exact law p = {exact.pvalue:.2f}\n"
    )
    assert exact.pvalue > 1e-3
    assert abs(found - ks_distance(pred)) < 1.95 / math.sqrt(logs.size)
    assert wrong > 0.3
    return np.sort(z)


def variance(samples):
    """Sample, exact law and beta over widths and depths."""
    print("2. log-variance:   n  depth        sample     exact      beta   exact/beta")
    table = []
    for n in WIDTHS:
        for depth in DEPTHS:
            mean, mean_se, found, se = moments(samples[n][depth - 1])
            pred = predict(chain(n, depth))
            agree(mean, mean_se, pred.log_mean, f"log-mean at n = {n}, depth {depth}")
            agree(found, se, pred.log_variance, f"log-variance at n = {n}, depth {depth}")
            table.append((n, depth, found, se, pred.log_variance, pred.beta))
            ratio = pred.log_variance / pred.beta
            print(
                f"{n:20d}{depth:7d}{found:9.3f} +- {se:.3f}{pred.log_variance:8.3f}{pred.beta:10.3f}{ratio:13.3f}"
            )
    assert all(row[4] > row[5] for row in table)
    print()
    return table


def kolmogorov(depths=(5, 20), widths=(8, 32, 128, 512, 2048)):
    """Distance of the exact law to the log-normal, and the rate of the paper's bound."""
    found = {}
    for depth in depths:
        preds = [predict(chain(n, depth)) for n in widths]
        found[depth] = [
            (n, ks_distance(p), kolmogorov_rate(p)) for n, p in zip(widths, preds, strict=True)
        ]
    print("3. KS distance    " + "".join(f"  n = {n:<4d}" for n in widths))
    for depth, rows in found.items():
        print(f"   depth {depth:2d}, exact " + "".join(f"{row[1]:9.4f}" for row in rows))
        print("             rate " + "".join(f"{row[2]:9.4f}" for row in rows))
        (n_, before, _), (n, last, rate) = rows[-2:]
        slope = math.log(last / before) / math.log(n / n_)
        assert abs(slope + 0.5) < 0.05, f"the distance falls like n^{slope}"
        assert last < rate
    print()
    return found


def moment_table(samples, depth=3):
    """E X^k of the widest networks, explicit, exact and by the theorem; dead draws count 0."""
    n = WIDTHS[-1]
    x, pred = np.exp(samples[n][depth - 1]), predict(chain(n, depth))
    print(f"4. n = {n}, depth {depth}: k    E X^k, sample     exact   exp(k(k-1) beta/2)")
    table = []
    for k in (1, 2, 3, 4):
        found, se = np.mean(x**k), np.std(x**k) / math.sqrt(x.size)
        exact, theorem = math.exp(pred.law.log_moment(k)), math.exp(log_moment(pred, k))
        agree(found, se, exact, f"moment {k}")
        table.append((k, found, se, exact, theorem))
        print(f"{k:23d}{found:10.3f} +- {se:.3f}{exact:9.3f}{theorem:12.3f}")
    error = depth / n**2
    assert (
        abs(math.log(table[1][3] / table[1][4]) + 12.5 * error) < 0.1 * 12.5 * error
    )  # the O(1/n^2) term at k = 2
    print()
    return table


def sweep(rng, width=32, depth=8):
    """Gates open with probability p."""
    print(f"5. n = {width}, depth {depth}: p   log-variance     exact   (3/p - 1) L/n")
    table = []
    for p in (0.25, 0.5, 0.75, 1.0):
        _, _, found, se = moments(log_gains(width, depth, rng, p)[-1])
        pred = predict(chain(width, depth, p))
        agree(found, se, pred.log_variance, f"p = {p}")
        assert math.isclose(pred.beta, (3 / p - 1) * depth / width)
        table.append((p, found, se, pred.log_variance, pred.beta))
        print(f"{p:23.2f}{found:9.3f} +- {se:.3f}{pred.log_variance:8.3f}{pred.beta:12.3f}")
    print()
    return table


def universality(rng, width=32, depth=8):
    """Entry laws of kurtosis 1 to 6: one log-normal; the predictions, of first order in the kurtosis, hold to 3 %."""
    print(
        f"6. n = {width}, depth {depth}: entries   log-variance  predicted    beta  KS distance to N(-beta/2, beta)"
    )
    table = []
    for name in ENTRIES:
        logs = log_gains(width, depth, rng, entries=name)[-1]
        _, _, found, se = moments(logs)
        pred = predict(chain(width, depth, entries=name))
        agree(found, se, pred.log_variance, name, slack=0.03)
        distance = stats.kstest(logs, pred.asymptotic_law.cdf).statistic
        assert distance < 0.08
        table.append((name, found, se, pred.log_variance, pred.beta, np.sort(logs)))
        print(
            f"{name:>29s}{found:9.3f} +- {se:.3f}{pred.log_variance:9.3f}{pred.beta:9.3f}{distance:12.3f}"
        )
    betas = [row[4] for row in table]
    assert max(betas) - min(betas) < 0.05 * betas[0]
    return table


SHADES = ("#9ecae1", "#4292c6", "#08306b")


def panel_log_normality(axis, z):
    axis.hist(z, bins=50, density=True, color="#c6dbef", label=f"{len(z)} products")
    grid = np.linspace(-4, 4, 200)
    axis.plot(grid, stats.norm.pdf(grid), "k", label="N(0, 1)")
    title = f"1. log-normality, n = {WIDTHS[-1]}, depth {DEPTHS[-1]}"
    axis.set(title=title, xlabel=r"$(\ln X + \beta/2)/\sqrt{\beta}$", ylabel="density")


def panel_variance(axis, table):
    for depth, color in zip(DEPTHS, SHADES, strict=True):
        n, _, found, se, exact, beta = np.array(
            [row for row in table if row[1] == depth], dtype=float
        ).T
        axis.errorbar(n, found, 2 * se, fmt="o", color=color, label=f"depth {depth}")
        axis.plot(n, exact, color=color)
        axis.plot(n, beta, "--", color=color)
    axis.plot([], [], "k", label="exact law")
    axis.plot([], [], "k--", label=r"$\beta = 5L/n$")
    axis.set(
        title="2. log-variance (bars: two standard errors)",
        xlabel="width n",
        xscale="log",
        yscale="log",
    )
    axis.set_xticks(WIDTHS, WIDTHS)
    axis.minorticks_off()


def panel_kolmogorov(axis, found):
    for (depth, rows), color in zip(found.items(), SHADES[1:], strict=True):
        n, exact, rate = np.array(rows).T
        axis.plot(n, exact, "o-", color=color, label=f"exact law, depth {depth}")
        axis.plot(n, rate, "--", color=color, label=f"rate of the bound, depth {depth}")
    axis.set(
        title="3. Kolmogorov distance to the log-normal",
        xlabel="width n",
        xscale="log",
        yscale="log",
    )
    axis.set_ylim(1e-4, 1.2)


def panel_moments(axis, table):
    k, found, se, exact, theorem = np.array(table).T
    axis.errorbar(k, found, 2 * se, fmt="o", color=SHADES[-1], label="products")
    axis.plot(k, exact, "k", label="exact law")
    axis.plot(k, theorem, "k--", label=r"$e^{k(k-1)\beta/2}$")
    axis.set(
        title=f"4. moments, n = {WIDTHS[-1]}, depth 3", xlabel="k", ylabel=r"$E X^k$", yscale="log"
    )
    axis.set_xticks(k, k.astype(int))
    axis.set_yticks([1, 2, 3, 4], [1, 2, 3, 4])
    axis.minorticks_off()


def panel_sweep(axis, table, width=32, depth=8):
    p, found, se, *_ = np.array(table).T
    axis.errorbar(p, found, 2 * se, fmt="o", color=SHADES[-1], label="products")
    grid = np.linspace(p[0], 1.0, 40)
    axis.plot(
        grid, [predict(chain(width, depth, q)).log_variance for q in grid], "k", label="exact law"
    )
    axis.plot(grid, (3 / grid - 1) * depth / width, "k--", label=r"$(3/p - 1)L/n$")
    title = f"5. gates open with probability p, n = {width}, depth {depth}"
    axis.set(title=title, xlabel="p", ylabel="log-variance", ylim=(0, None))


def panel_universality(axis, table):
    for (name, *_, logs), color in zip(table, ("k", "#4292c6", "#d94801", "#238b45"), strict=True):
        alive = logs[np.isfinite(logs)]
        axis.plot(alive, np.linspace(0, 1, alive.size), color=color, lw=1.2, label=name)
    beta = table[0][4]
    grid = np.linspace(*axis.get_xlim(), 200)
    axis.plot(
        grid,
        stats.norm.cdf(grid, -beta / 2, math.sqrt(beta)),
        "k:",
        lw=2,
        label=r"N$(-\beta/2, \beta)$",
    )
    axis.set(
        title="6. entries of any law, n = 32, depth 8",
        xlabel=r"$\ln X$",
        ylabel="distribution function",
    )


def draw(path, *found):
    """Write the six panels to ``path``."""
    try:
        import matplotlib
    except ImportError:
        raise SystemExit("--figure needs matplotlib: pip install matplotlib") from None
    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    panels = (
        panel_log_normality,
        panel_variance,
        panel_kolmogorov,
        panel_moments,
        panel_sweep,
        panel_universality,
    )
    figure, axes = plt.subplots(2, 3, figsize=(13, 7.5), layout="constrained")
    for panel, axis, data in zip(panels, axes.flat, found, strict=True):
        panel(axis, data)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--figure", type=Path, metavar="PATH", help="draw it into this file (matplotlib)"
    )
    path = parser.parse_args().figure
    rng = np.random.default_rng(1)
    samples = {n: log_gains(n, DEPTHS[-1], rng) for n in WIDTHS}
    found = (
        log_normality(samples), variance(samples), kolmogorov(), moment_table(samples), sweep(rng), universality(rng)
    )  # fmt: skip
    if path is not None:
        draw(path, *found)
        print(f"\ndrawn: {path}")


if __name__ == "__main__":
    main()

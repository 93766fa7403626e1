"""Free probability: laws multiplied and added, beside the eigenvalues of random matrices.

    pip install initdiag && python examples/free_probability.py [--figure free.png]

Each law is built from others by ``+`` and ``@``; each is compared with the eigenvalues of
one matrix that is built the same way, by the Kolmogorov-Smirnov distance. The matrices are
large (1,000), and the laws are their limit.
"""

from __future__ import annotations

import argparse
import itertools
import sys

import numpy as np
from scipy import integrate

import initdiag
from initdiag import free

SIZE = 1000


def gaussian(rng, rows, columns):
    """Entries of variance 1/columns."""
    return rng.standard_normal((rows, columns)) / np.sqrt(columns)


def wigner(rng):
    noise = gaussian(rng, SIZE, SIZE)
    return (noise + noise.T) / np.sqrt(2)


def gate(rng, rows, share):
    """A column of exactly ``share`` ones, in random order."""
    return rng.permutation(np.arange(rows) < round(share * rows))[:, None]


def layers(rng, widths, share):
    """``J`` of Gaussian layers whose gates are open with ``share``."""
    jacobian = np.eye(widths[0])
    for fan_in, fan_out in itertools.pairwise(widths):
        jacobian = gate(rng, fan_out, share) * (gaussian(rng, fan_out, fan_in) @ jacobian)
    return jacobian


def cases(rng):
    """Yield name, law, matrix, and where the density is drawn."""
    signs = rng.permutation(np.repeat([-1.0, 1.0], SIZE // 2))
    yield (
        "a sign and noise: two atoms + semicircle",
        free.Empirical((-1.0, 1.0), (0.5, 0.5)) + free.Semicircle(0.5),
        np.diag(signs) + np.sqrt(0.5) * wigner(rng),
        (-2.7, 2.7),
    )
    x = gaussian(rng, 2 * SIZE, SIZE)
    yield (
        "a covariance and noise: Marchenko-Pastur + semicircle",
        free.MarchenkoPastur(2.0) + free.Semicircle(0.3),
        x.T @ x + np.sqrt(0.3) * wigner(rng),
        (-1.5, 6.5),
    )
    jacobian = layers(rng, [SIZE] * 4, 0.5)
    law = free.Projection(0.5) @ free.MarchenkoPastur()
    yield (
        "three ReLU layers: products",
        8 * (law @ law @ law),
        8 * jacobian.T @ jacobian,
        (0.05, 18.0),
    )
    widths, share = [SIZE, 3 * SIZE // 2, SIZE // 2], 0.8
    jacobian = layers(rng, widths, share)
    yield (
        "two rectangular layers",
        free.FreeProduct(
            (
                free.MarchenkoPastur(1.5),
                free.Projection(share),
                free.MarchenkoPastur(1 / 3),
                free.Projection(share),
            ),
            sizes=(widths[0], widths[1], widths[1], widths[2]),
        ),
        jacobian.T @ jacobian,
        (0.02, 3.5),
    )


def distance(law, eigenvalues, low, high):
    """Kolmogorov-Smirnov distance, of the shares of eigenvalues above each x > low."""
    angle = np.pi * (np.arange(1500) + 0.5) / 1500
    x = low + (high - low) * np.sin(angle / 2) ** 2
    rates = law.density(x) * (high - low) * np.sin(angle) / 2
    below = integrate.cumulative_trapezoid(rates, angle, initial=0.0)
    found = 1 - np.searchsorted(eigenvalues, x, "right") / len(eigenvalues)
    return np.abs(found - (below[-1] - below)).max()


def compare(rng):
    shown = []
    print(f"{'law':56s}{'mean':>8s}{'measured':>10s}{'KS distance':>13s}")
    for name, law, matrix, (low, high) in cases(rng):
        eigenvalues = np.linalg.eigvalsh(matrix)
        apart = distance(law, eigenvalues, low, high)
        print(f"{name:56s}{law.mean:8.3f}{eigenvalues.mean():10.3f}{apart:13.4f}")

        assert apart < 0.01, f"{name}: {apart}"
        shown.append((name, law, eigenvalues, low, high))
    return shown


def check_chain():
    """The same product as `initdiag.predict_spectrum` finds by its own closed form."""
    spectrum = initdiag.predict_spectrum([SIZE] * 4, init="he_normal", output="relu")
    layer = free.Projection(0.5) @ free.MarchenkoPastur(scale=2.0)
    product = layer @ layer @ layer
    x = np.log([0.5, 1.0, 4.0])
    difference = np.abs(product.density(np.exp(x)) * np.exp(x) - spectrum.density(x)).max()
    print(f"\nthree He-initialised ReLU layers: moments {product.moments(4)}")
    print(f"by predict_spectrum:                      {spectrum.moments(4)}")
    print(f"largest difference of the densities: {difference:.1e}")
    assert difference < 1e-8


def draw(shown, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    for ax, (name, law, eigenvalues, low, high) in zip(
        figure.subplots(2, 2).flat, shown, strict=True
    ):
        edges = np.linspace(low, high, 61)
        counts = np.histogram(eigenvalues, edges)[0]
        heights = counts / (len(eigenvalues) * (edges[1] - edges[0]))
        ax.stairs(heights, edges, fill=True, color="0.8", label=f"{SIZE} eigenvalues")
        grid = np.linspace(low, high, 600)
        ax.plot(grid, law.density(grid), color="C0", lw=1.5, label="law")
        if 0.0 in law.atoms:
            ax.plot([], [], " ", label=f"{law.atoms[0.0]:.0%} are 0")
        ax.set(title=name, yticks=[], ylim=(0, 1.25 * np.quantile(heights, 0.99)))
        ax.set_xlabel("eigenvalue")
        ax.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    print(f"figure: {path}")


def main():
    parser = argparse.ArgumentParser(description="Laws of sums and products of random matrices.")
    parser.add_argument("--figure", metavar="PATH", help="also draw them (needs matplotlib)")
    path = parser.parse_args().figure
    if path is not None:
        try:
            import matplotlib  # noqa: F401
        except ImportError:
            sys.exit("--figure needs matplotlib: pip install matplotlib")
    shown = compare(np.random.default_rng(0))
    check_chain()
    if path is not None:
        draw(shown, path)


if __name__ == "__main__":
    main()

"""One spectrum for all weights with four moments, and where that ends.

The limiting spectrum of a deep network's Jacobian depends on the weights through their variance alone, if the entries are iid
with a finite fourth moment (Pastur and Slavin, arXiv 2011.11439). Here the squared singular values of explicit products D W
(He scaling, ReLU gates, exactly half of them open) are compared with the predicted law, width by width and law by law: Kolmogorov-
Smirnov distance of the pooled eigenvalues, and the largest eigenvalue over the predicted edge.

What is found. With four moments the distance falls like a power of the width for every law: near 1/width where the entries are bounded or
Gaussian, more slowly and from higher up the larger the kurtosis (9 for t(5), 15 for the sparse one), and the largest eigenvalue
comes to the predicted edge. Student-t(2.5) has a variance and no fourth moment: the distance still falls, but so slowly
that at width 800 it is more than twenty times the Gaussian one, and the edge is lost: the largest eigenvalue grows away from it with the width.
Student-t(1.5) has no variance: nothing is left of the law.

Run it: python examples/universality.py (numpy, scipy and initdiag; about ten seconds).
"""

from __future__ import annotations

import itertools

import numpy as np

from initdiag.spectrum.predict import predict_spectrum

DEPTH = 3
WIDTHS = (50, 100, 200, 400, 800)
DRAWS = {50: 64, 100: 32, 200: 16, 400: 8, 800: 4}


def student(freedom):
    """Student's t with unit variance; without a variance (freedom <= 2), with unit median absolute value / 0.6745."""

    def draw(rng, shape):
        sample = rng.standard_t(freedom, shape)
        return (
            sample * np.sqrt((freedom - 2) / freedom)
            if freedom > 2
            else 0.6745 * sample / np.median(np.abs(sample))
        )

    return draw


def sparse(share):
    """Entries that are 0 but for a share, Gaussian there: kurtosis 3/share."""

    def draw(rng, shape):
        return rng.standard_normal(shape) * (rng.random(shape) < share) / np.sqrt(share)

    return draw


FOUR_MOMENTS = {
    "Gaussian": lambda rng, shape: rng.standard_normal(shape),
    "uniform": lambda rng, shape: rng.uniform(-1, 1, shape) * np.sqrt(3),
    "Rademacher": lambda rng, shape: rng.choice([-1.0, 1.0], shape),
    "sparse (20 %)": sparse(0.2),
    "Student t(5)": student(5),
}
BEYOND = {"Student t(2.5)": student(2.5), "Student t(1.5)": student(1.5)}


def eigenvalues(draw, width, rng):
    """``lambda > 0`` of one product of ``DEPTH`` layers: half the rows of each are closed, the rest drawn at variance 2/width."""
    jacobian = np.eye(width)
    for _ in range(DEPTH):
        jacobian = np.sqrt(2 / width) * draw(rng, (width // 2, len(jacobian))) @ jacobian
        jacobian = np.vstack([jacobian, np.zeros_like(jacobian)])
    return np.linalg.svd(jacobian, compute_uv=False)[: width // 2] ** 2


def ks_distance(log_sample, law):
    cdf, steps = law.cdf(np.sort(log_sample)), np.arange(len(log_sample) + 1) / len(log_sample)
    return max(np.max(steps[1:] - cdf), np.max(cdf - steps[:-1]))


def study(draw, width):
    """Return the KS distance and the median over draws of largest eigenvalue over predicted edge."""
    rng = np.random.default_rng(width)
    spectrum = predict_spectrum([width] * (DEPTH + 1), init="he_normal", output="relu")
    sample = [eigenvalues(draw, width, rng) for _ in range(DRAWS[width])]
    largest = np.median([s[0] for s in sample]) / spectrum.upper_edge
    return ks_distance(np.log(np.concatenate(sample)), spectrum.law), largest


def check(found):
    """Assert what the docstring claims."""
    for name in FOUR_MOMENTS:
        (first, _), *_, (last, edge) = found[name]
        assert last < first / 2, f"{name}: the distance does not fall"
        assert last < 0.015, f"{name}: {last} at width {WIDTHS[-1]}"
        assert abs(edge - 1) < 0.1, f"{name}: the largest eigenvalue is {edge} of the edge"
    gaussian = found["Gaussian"][-1][0]
    bulk, edges = zip(*found["Student t(2.5)"], strict=True)
    assert all(later < earlier for earlier, later in itertools.pairwise(bulk))
    assert bulk[-1] > 20 * gaussian
    assert edges[-1] > 1.3 > edges[0]
    bulk, edges = zip(*found["Student t(1.5)"], strict=True)
    assert min(bulk) > 0.5
    assert min(edges) > 100


def main():
    print(
        f"{DEPTH} square ReLU layers: KS distance to the predicted law (largest eigenvalue / predicted edge)\n"
    )
    print(f"{'width':16s}" + "".join(f"{n:>20d}" for n in WIDTHS))
    found = {}
    for name, draw in {**FOUR_MOMENTS, **BEYOND}.items():
        found[name] = [study(draw, width) for width in WIDTHS]
        print(f"{name:16s}" + "".join(f"{ks:9.4f} ({edge:8.3g})" for ks, edge in found[name]))
    check(found)


if __name__ == "__main__":
    main()

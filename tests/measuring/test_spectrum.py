"""Measured singular values against the definition: signs put into real weights by hand, `torch.func.jacrev`, numpy's SVD."""

from __future__ import annotations

import json
import math
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.styles import STYLES, mlp, seeded
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import initdiag
from initdiag import InvalidInput, SpectralMeasurement, UnsupportedArchitecture, measure_spectrum
from initdiag.measuring import singular
from initdiag.measuring.ensembles import networks, random_numbers


def eigenvalues(model, x):
    jacobian = torch.func.jacrev(model)(x[None]).reshape(-1, x.numel())
    return np.linalg.svd(jacobian.detach().double().numpy(), compute_uv=False) ** 2


def with_signs(widths, model, seed, draw):
    """The network of one draw: ``R W S`` and ``R b`` written into a plain copy."""
    flipped = mlp(widths).double()
    for stream, index in enumerate(range(0, 2 * len(widths) - 2, 2)):
        w, b = model[index].weight, model[index].bias
        signs = torch.from_numpy(
            random_numbers.signs(seed, range(draw + 1), stream, sum(w.shape))[draw]
        ).double()
        s, r = signs[: w.shape[1]], signs[w.shape[1] :]
        with torch.no_grad():
            flipped[index].weight.copy_(r[:, None] * w * s)
            flipped[index].bias.copy_(r * b)
    return flipped


@pytest.mark.parametrize(
    "widths", [[6, 9, 7, 8], [9, 12, 5], [7, 7]], ids=["forward", "reverse", "square"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_signs_against_the_definition(widths, dtype):
    model = seeded(lambda: mlp(widths)).to(dtype)
    x = torch.randn(
        3, widths[0], generator=torch.Generator().manual_seed(0), dtype=torch.float64
    ).to(dtype)
    found = measure_spectrum(model, x, draws=5, seed=42)
    assert found.is_dense
    for draw in range(5):
        expected = eigenvalues(with_signs(widths, model, 42, draw), x[draw % 3].double())
        np.testing.assert_allclose(
            found.squared_singular_values[draw], expected, rtol=1e-9, atol=1e-12
        )
    wrong = eigenvalues(with_signs(widths, model, 42, 0), x[1].double() + 1)
    assert len(widths) == 2 or not np.allclose(found.squared_singular_values[0], wrong, rtol=1e-3)


def normal_init(module):
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.4)
        nn.init.normal_(module.bias, std=0.1)


@pytest.mark.parametrize("widths", [[5, 8, 9], [8, 9, 3]])
def test_redraws_against_the_definition(widths):
    model = seeded(lambda: mlp(widths)).double()
    x = torch.linspace(-1, 1, widths[0], dtype=torch.float64)[None]
    found = measure_spectrum(model, x, draws=3, method="redraw", init=normal_init, seed=7)
    for draw in range(3):
        fresh = mlp(widths).double()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(random_numbers.draw_seed(7, draw))
            fresh.apply(normal_init)
        np.testing.assert_allclose(
            found.squared_singular_values[draw], eigenvalues(fresh, x[0]), rtol=1e-9, atol=1e-12
        )


class Residual(nn.Module):
    """Not a chain: sums, a norm, a smooth activation, a side output that is not used."""

    def __init__(self, n=12, out=12):
        super().__init__()
        self.norm, self.head = nn.LayerNorm(n), nn.Linear(n, out)
        self.blocks = nn.ModuleList([nn.Linear(n, n) for _ in range(3)])

    def forward(self, x):
        for block in self.blocks:
            x = x + torch.nn.functional.gelu(block(self.norm(x)))
        return self.head(x)


@pytest.mark.parametrize("out", [12, 5])
def test_any_module_by_redraws_of_its_own_initialiser(out):
    model = seeded(lambda: Residual(out=out)).double()
    x = torch.randn(2, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = measure_spectrum(model, x, draws=2, method="redraw", seed=3)
    for draw in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(random_numbers.draw_seed(3, draw))
            fresh = Residual(out=out)
            fresh.apply(lambda m: m.reset_parameters() if hasattr(m, "reset_parameters") else None)
            torch.default_generator.manual_seed(random_numbers.draw_seed(3, draw))
            fresh.double().apply(
                lambda m: m.reset_parameters() if hasattr(m, "reset_parameters") else None
            )
        np.testing.assert_allclose(
            found.squared_singular_values[draw], eigenvalues(fresh, x[draw]), rtol=1e-9
        )


@pytest.mark.parametrize("style", STYLES, ids=lambda s: s.name)
def test_every_style_and_both_directions_agree(style, monkeypatch):
    """Forward and reverse mode are independent of each other: force each on the same networks, in pieces of few rows."""
    model = seeded(style.build, seed=1)
    found = measure_spectrum(model, input_size=style.input_size, draws=3)
    real_push, real_pull = singular.Push, singular.Pull

    def repeated(many, count):
        return torch.eye(count, dtype=many.dtype), many[:1].expand(count, *many.shape[1:])

    def unscaled(rows, logs):
        return rows * torch.exp(logs)[:, None]

    def push(task, ensemble, network, many, u):
        """Answer a question about columns, ``J u``, by the rows ``J^T e_j``."""
        eye, base = repeated(many, networks.sizes(task)[1])
        rows = u.flatten(1) @ unscaled(*real_pull(task, ensemble, network, base)(eye)).T
        return SimpleNamespace(rows=(rows, torch.zeros(len(u), dtype=torch.float64)))

    def pull(task, ensemble, network, many):
        """The other way round."""
        eye, base = repeated(many, networks.sizes(task)[0])
        columns = unscaled(*real_push(task, ensemble, network, base, eye.reshape(base.shape)).rows)
        return lambda v: (v @ columns.T, torch.zeros(len(v), dtype=torch.float64))

    monkeypatch.setattr(singular, "Push", push)
    monkeypatch.setattr(singular, "Pull", pull)
    monkeypatch.setattr(singular, "_BUDGET", 64 * 8 * 24 * 5)
    swapped = measure_spectrum(model, input_size=style.input_size, draws=3)
    np.testing.assert_allclose(
        swapped.squared_singular_values, found.squared_singular_values, rtol=1e-8, atol=1e-12 * math.exp(found.log_nodes.max())
    )  # fmt: skip
    assert (found.input_size, found.output_size) == (style.widths[0], style.widths[-1])


def test_log_norms_are_those_of_measure():
    """With one output, the only singular value squared is ``||J^T||^2``; with one input it is ``||Ju||^2``: `measure`'s."""
    model = seeded(lambda: mlp([1, 20, 16, 8], init="he_normal")).double()
    one = initdiag.measure(model, draws=32, seed=5)
    found = measure_spectrum(model, draws=32, seed=5)
    np.testing.assert_allclose(found.log_nodes[:, 0], one.log_norms, rtol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("last", [64, 10], ids=["forward", "reverse"])
def test_fifty_layers_under_the_default_neither_underflow_nor_die(last):
    """The scale of 1e-38 is that of a longer product, in extended range, of the same matrices."""
    widths = [64] * 50 + [last]
    model = seeded(lambda: mlp(widths)).double()
    x = torch.randn(1, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = measure_spectrum(model, x, draws=2, seed=9)
    assert np.all(found.log_largest < -80)
    for draw in range(2):
        flipped, hidden, product, log = (
            with_signs(widths, model, 9, draw),
            x,
            torch.eye(64, dtype=torch.float64),
            0.0,
        )
        for part in flipped:
            if isinstance(part, nn.Linear):
                product = part.weight @ product
                hidden = part(hidden)
            else:
                product, hidden = (hidden > 0).T * product, hidden.relu()
            size = product.abs().max()
            product, log = product / size, log + math.log(size)
        top = np.linalg.svd(product.detach().numpy(), compute_uv=False)[0]
        assert found.log_largest[draw] == pytest.approx(2 * (math.log(top) + log), abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("init", ["he_normal", "torch_default"], ids=["no biases", "biases"])
@pytest.mark.parametrize("last", [8, 3], ids=["forward", "reverse"])
def test_nothing_underflows(init, last):
    """Twenty-one weights of 1e-36 make 1e-756; float64 ends at 1e-308. Compared with weights of 1e-6, dense and by Lanczos' iteration."""
    widths = [8] * 20 + [last]
    model, tiny = (seeded(lambda: mlp(widths, init=init)).double() for _ in range(2))
    for part, scaled in zip(model[::2], tiny[::2], strict=True):
        part.weight.data.mul_(1e-6)  # below the biases, as is 1e-36: the same gates
        scaled.weight.data.mul_(1e-36)
    shift = 40 * math.log(1e-30)
    for dense in (True, False):
        found, expected = (measure_spectrum(m, draws=6, dense=dense) for m in (tiny, model))
        for name in ("log_largest", "log_nodes"):
            values, plain = getattr(found, name), getattr(expected, name)
            is_big = plain > plain.max() - 20
            np.testing.assert_allclose(values[is_big], plain[is_big] + shift, rtol=0, atol=2e-3)
        assert np.isfinite(found.log_largest).any()


def test_dropout_is_one_mask_a_network():
    """A mask that differed from direction to direction would give the Jacobian of no network, and full rank."""
    model = nn.Sequential(
        nn.Linear(12, 12, bias=False), nn.Dropout(0.5), nn.Linear(12, 12, bias=False)
    )
    for p in model.parameters():
        nn.init.orthogonal_(p)
    found = measure_spectrum(model, draws=64)
    ranks = np.sum(found.log_nodes > -20, axis=1)
    assert np.allclose(found.squared_singular_values[found.log_nodes > -20], 4.0)
    assert 4.5 < ranks.mean() < 7.5
    assert ranks.min() < ranks.max()
    reverse = measure_spectrum(nn.Sequential(*model[:2], nn.Linear(12, 11, bias=False)), draws=8)
    assert np.array_equal(np.minimum(ranks[:8], 11), np.sum(reverse.log_nodes > -20, axis=1))


def test_draws_depend_on_seed_and_number_alone():
    model = seeded(lambda: mlp([12, 20, 16, 5]))
    whole = measure_spectrum(model, draws=6, seed=3)
    np.testing.assert_array_equal(
        measure_spectrum(model, draws=4, seed=3).log_nodes, whole.log_nodes[:4]
    )
    assert not np.array_equal(measure_spectrum(model, draws=6, seed=4).log_nodes, whole.log_nodes)


LARGE = [
    (lambda: mlp([150] * 4), "signs"),
    (lambda: mlp([120, 200, 160]), "signs"),
    (lambda: mlp([200, 150, 100]), "redraw"),
    (lambda: mlp([160, 160]), "signs"),
    (lambda: Residual(n=100, out=90), "signs"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("build", "method"), LARGE)
def test_lanczos_moments_are_those_of_the_dense_decomposition(build, method):
    """On the same networks: moments 1 to 4 within four standard errors (24 comparisons), and the extremes."""
    model = seeded(build)
    dense = measure_spectrum(model, draws=32, method=method)
    large = measure_spectrum(model, draws=32, method=method, dense=False)
    assert not large.is_dense
    assert large.squared_singular_values is None
    assert large.log_nodes.shape == (32, 64)
    assert np.all(np.abs(large.moments() - dense.moments()) < 4 * large.moments_se())
    assert np.all(large.moments_se() < 0.25 * large.moments())
    np.testing.assert_allclose(large.log_largest, dense.log_largest[:2], rtol=0, atol=2e-4)
    unresolved = np.mean(dense.log_nodes < dense.log_largest[:, None] + large.log_resolution)
    share = 1 - (1 - unresolved) * dense.log_nodes.shape[1] / dense.input_size
    assert abs(large.zero_mass - share) < 3 * large.zero_mass_se + 0.02
    shifted = dense.moments() * 1.5
    assert np.any(np.abs(large.moments() - shifted) > 4 * large.moments_se())  # the test can fail


def test_lanczos_density_is_the_histogram_within_its_error():
    model = seeded(lambda: mlp([200, 200, 200], init="he_normal"))
    edges = np.linspace(-4, 2, 13)
    dense = measure_spectrum(model, draws=24)
    large = measure_spectrum(model, draws=24, dense=False, steps=100)
    (d, d_se), (f, f_se) = dense.density(edges), large.density(edges)
    assert np.all(np.abs(f - d) < 4 * np.hypot(f_se, d_se) + 0.01)
    assert np.sum(f * np.diff(edges)) == pytest.approx(np.sum(d * np.diff(edges)), abs=0.03)


def test_the_smallest_singular_value_of_an_isometry():
    model = nn.Linear(80, 80, bias=False)
    nn.init.orthogonal_(model.weight, 3.0)
    large = measure_spectrum(model, draws=3, dense=False)
    np.testing.assert_allclose(
        [*large.log_largest, *large.log_smallest], 2 * math.log(3.0), atol=1e-3
    )
    np.testing.assert_allclose(large.moments(2), [9, 81], rtol=1e-6)
    assert large.zero_mass == pytest.approx(0, abs=1e-9)


def test_lanczos_where_the_krylov_space_ends():
    """Rank 3, and no rank at all."""
    model = seeded(lambda: mlp([90, 3, 90], init="he_normal"))
    dense, large = (measure_spectrum(model, draws=16, dense=dense) for dense in (True, False))
    assert large.zero_mass == pytest.approx(dense.zero_mass, abs=0.02)
    np.testing.assert_allclose(large.log_largest, dense.log_largest[:2], rtol=0, atol=2e-4)
    dead = np.flatnonzero(~np.isfinite(dense.log_largest))
    assert len(dead) > 0
    assert np.all(large.log_nodes[dead] == -np.inf)
    tiny = measure_spectrum(seeded(lambda: mlp([4, 9, 2])), draws=2, dense=False)
    exact = measure_spectrum(seeded(lambda: mlp([4, 9, 2])), draws=2)
    np.testing.assert_allclose(tiny.log_nodes, exact.log_nodes, rtol=1e-6)
    np.testing.assert_allclose(tiny.log_largest, exact.log_largest, rtol=1e-9)


class LargestTensor(TorchDispatchMode):
    """The number of entries of the largest tensor that any operation returns."""

    def __init__(self):
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.entries = max(
                    self.entries, tensor.untyped_storage().nbytes() // tensor.element_size()
                )
        return out


@pytest.mark.slow
def test_a_large_jacobian_is_never_formed_unasked():
    """Sides of 2,048 round a bottleneck of 4, so that no weight is as large as the Jacobian."""
    model = seeded(lambda: mlp([2048, 4, 2048]))
    arch = initdiag.trace(model)
    tracemalloc.start()
    with LargestTensor() as watched:
        found = measure_spectrum(model, draws=2, steps=16, architecture=arch)
    _, peak = tracemalloc.get_traced_memory()  # numpy's
    tracemalloc.stop()
    assert not found.is_dense
    assert watched.entries < 2048**2 / 4
    assert peak < 2048**2 * 8 / 2
    with LargestTensor() as watched:
        measure_spectrum(seeded(lambda: mlp([64, 4, 64])), draws=1)
    assert watched.entries >= 64**2  # the watch sees a Jacobian where there is one


def test_what_is_dense_unasked():
    assert singular.fits_dense(1024, 1024)
    assert singular.fits_dense(784, 30_000)
    assert not singular.fits_dense(1025, 1025)
    assert not singular.fits_dense(8192, 8192)
    assert not singular.fits_dense(150_528, 1000)  # 1.2 GB


def test_rows_that_mix_are_refused():
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))
    for method in ("signs", "redraw"):
        with pytest.raises(UnsupportedArchitecture, match="rows of a batch are mixed"):
            measure_spectrum(model, torch.randn(6, 8), method=method)
    assert measure_spectrum(model.eval(), torch.randn(6, 8), draws=3).draws == 3


def test_what_the_ensembles_do_not_cover_is_said():
    model = seeded(lambda: mlp([32, 32, 8], init="he_normal"))
    with torch.no_grad():
        model[0].weight.mul_(1.37)
    with pytest.raises(UnsupportedArchitecture, match="Pass init="):
        measure_spectrum(model, method="redraw", draws=2)
    with torch.no_grad():
        model[0].weight.add_(1.0)
    with pytest.raises(
        UnsupportedArchitecture, match="Use method='redraw' with an init or a factory"
    ):
        measure_spectrum(model)
    found = measure_spectrum(lambda: mlp([9, 7], init="he_normal"), method="redraw", draws=2)
    assert found.method == "redraw"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": 0}, "draws: a positive integer"),
        ({"steps": 2.5}, "steps: a positive integer"),
        ({"seed": -1}, "seed: a non-negative int"),
        ({"method": "law"}, "method: one of signs, redraw, got 'law'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InvalidInput, match=message):
        measure_spectrum(mlp([4, 4]), **options)


@pytest.mark.parametrize("dense", [True, False])
def test_the_record_survives_json(dense):
    found = measure_spectrum(
        seeded(lambda: mlp([6, 3, 9, 5], init="he_normal")), draws=12, dense=dense
    )
    assert (
        SpectralMeasurement.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False)))
        == found
    )
    assert not found.log_nodes.flags.writeable


def record(**changes):
    nodes = np.log(np.array([[4.0, 1.0], [2.0, 1e-40]]))
    fields = {
        "method": "signs", "draws": 2, "seed": 0, "input_size": 4, "output_size": 2, "log_nodes": nodes, "weights": None,
        "log_largest": nodes[:, 0], "log_smallest": nodes[:, 1], "log_resolution": -70.0,
    }  # fmt: skip
    return SpectralMeasurement(**(fields | changes))


def test_the_statistics_of_a_record_by_hand():
    found = record()
    np.testing.assert_allclose(found.moments(2), [(5 + 2) / 8, (17 + 4) / 8])
    np.testing.assert_allclose(found.moments_se(2), [3 / 8, 13 / 8])
    np.testing.assert_allclose(found.log_moments(1), math.log(7 / 8))
    assert found.zero_mass == pytest.approx(5 / 8)
    assert found.zero_mass_se == pytest.approx(1 / 8)
    np.testing.assert_allclose(found.cdf([math.log(3), 5.0]), [[0.75, 1.0], [1.0, 1.0]])
    density, error = found.density([-1.0, 1.0, 2.0])
    np.testing.assert_allclose(density, [(1 + 1) / 4 / 2 / 2, 1 / 4 / 2])
    np.testing.assert_allclose(error, [0, 1 / 8])
    assert math.isnan(record(draws=1, log_nodes=np.zeros((1, 2))).moments_se(1)[0])
    mixed = record(weights=np.array([[0.25, 0.25], [0.1, 0.4]]))
    assert mixed.zero_mass == pytest.approx(1 - (0.5 + 0.1) / 2)
    np.testing.assert_allclose(mixed.cdf(math.log(2)), [0.5 + 0.25, 0.9 + 0.05])


def test_a_record_of_other_shapes_is_refused():
    with pytest.raises(InvalidInput, match=r"log_nodes \(and weights\) of shape \(3, 2\)"):
        record(draws=3)
    with pytest.raises(InvalidInput, match="at least two ascending edges"):
        record().density([1.0, 0.0])


def test_outputs_in_a_dict_inputs_changed_in_place_and_several_positions():
    class Dict(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 5), nn.Linear(5, 2)

        def forward(self, x):
            x.mul_(3.0)
            return {"logits": self.b(self.a(x).relu_())}

    model = seeded(Dict).double()
    x = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    dense, large = (measure_spectrum(model, x, draws=3, dense=dense) for dense in (True, False))
    assert (dense.input_size, dense.output_size) == (24, 8)
    largest = dense.squared_singular_values.max(axis=1)
    np.testing.assert_allclose(large.moments(1), dense.moments(1), rtol=0.5)
    np.testing.assert_allclose(np.exp(large.log_nodes[:, 0]), largest, rtol=1e-6)


def test_a_forward_that_reverse_mode_cannot_follow_is_said():
    class ForwardOnly(torch.autograd.Function):
        @staticmethod
        def forward(x):
            return x * 2

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

        @staticmethod
        def jvp(ctx, tangent):
            return tangent * 2

    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 3)

        def forward(self, x):
            return ForwardOnly.apply(self.a(x))

    with pytest.raises(UnsupportedArchitecture, match="expected a module that loss"):
        measure_spectrum(seeded(Odd), draws=2)


def dropping():
    """Dropout, and a smooth activation."""
    return nn.Sequential(nn.Linear(150, 180), nn.Dropout(0.3), nn.GELU(), nn.Linear(180, 120))


@pytest.mark.slow
@pytest.mark.parametrize(
    "build", [dropping, lambda: mlp([60, 80, 70])], ids=["dropout, gelu", "relu"]
)
def test_the_quadrature_is_unbiased_network_by_network(build):
    """Same networks, same masks: what differs from draw to draw is the probe alone, whose mean error is 0."""
    model = seeded(build)
    dense, large = (
        measure_spectrum(model, draws=192, steps=5, dense=dense) for dense in (True, False)
    )
    lambdas, weights = (
        dense.squared_singular_values / dense.input_size,
        large.weights * np.exp(large.log_nodes),
    )
    difference = weights.sum(axis=1) - lambdas.sum(axis=1)
    error = difference.std(ddof=1) / math.sqrt(192)
    assert abs(difference.mean()) < 3.5 * error
    assert error < 0.04 * dense.moments(1)[0]
    shuffled = weights.sum(axis=1)[::-1] - lambdas.sum(axis=1)
    assert shuffled.std() > 1.02 * difference.std()  # the networks are the same, draw by draw

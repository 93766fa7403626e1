"""What is looked at: parts of a model, lazy, meta and compiled ones, parametrised and tied weights."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.styles import mlp, seeded
from torch import nn
from torch.nn.utils import parametrizations

import initdiag
from initdiag import InvalidInput, UnsupportedArchitecture, measure, trace
from initdiag.diagnosing.agreement import agreement
from initdiag.tracing.provenance import computed_name


class Vision(nn.Module):
    """A convolution, and a fully connected head on what it makes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten())
        self.head = nn.Sequential(nn.Linear(144, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x):
        return F.log_softmax(self.head(self.body(x)), -1)


def test_a_part_alone():
    model, x = seeded(Vision), torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert trace(model, x).gaps
    arch = trace(model, x, module="head")
    assert arch.widths == (144, 64, 10)
    assert arch.gaps == ()
    assert arch.source == "Vision.head"
    assert [layer.name for layer in arch.layers] == ["0.weight", "2.weight"]
    assert arch.input_rms == pytest.approx(
        float(model.body(x).detach().square().mean().sqrt()), rel=1e-6
    )
    assert (
        dataclasses.replace(
            trace(model, input_size=(2, 1, 8, 8), module="head"), input_rms=arch.input_rms
        )
        == arch
    )
    found = measure(model, x, module="head", draws=2048)
    handed = model.body(x).detach()
    np.testing.assert_array_equal(
        found.log_norms, measure(model.head, handed, draws=2048).log_norms
    )
    report = initdiag.diagnose(model, x, module="head", draws=512)
    assert report.ok
    assert report.target == "Vision.head"
    assert report.agreement.agrees


def test_a_part_of_a_factory_is_redrawn():
    x = torch.ones(4, 1, 8, 8)
    found = measure(Vision, x, module="head", draws=512, method="redraw")
    assert agreement(trace(seeded(Vision), x, module="head"), found, level=0.002) is not None
    assert abs(found.log_mean - initdiag.predict([144, 64, 10]).log_mean) < 4 * found.log_mean_se


def test_parts_that_cannot_be_looked_at_alone():
    x = torch.ones(4, 1, 8, 8)
    with pytest.raises(InvalidInput, match="path of a submodule, got 'tail'"):
        trace(Vision(), x, module="tail")

    class Twice(Vision):
        def forward(self, x):
            h = self.body(x)
            return self.head(h) + self.head(h)

    assert trace(Twice(), x, module="head").ways == (
        "the part is called 2 times: judged on what it is given first",
    )
    with pytest.raises(InvalidInput, match="takes the input, got RuntimeError"):
        trace(Vision(), torch.ones(4, 3), module="head")


def lazy():
    return nn.Sequential(nn.LazyLinear(32), nn.ReLU(), nn.LazyLinear(8))


def test_lazy_layers_run_once_on_a_copy():
    model = lazy()
    arch = trace(model, torch.ones(4, 20))
    assert arch.widths == (20, 32, 8)
    assert nn.parameter.is_lazy(model[0].weight), "the user's model stays lazy"
    assert len(model[0]._forward_pre_hooks) == 1
    assert arch == trace(model, input_size=(4, 20))
    assert initdiag.diagnose(model, torch.ones(4, 20), draws=256).agreement.agrees
    assert model(torch.ones(4, 7)).shape == (4, 8)
    with pytest.raises(InvalidInput, match="lazy layers"):
        trace(lazy())


def test_meta_models_are_traced_under_a_stated_assumption():
    with torch.device("meta"):
        model = mlp([256] * 9)
    arch = trace(model)
    assert arch.widths == (256,) * 9
    assert {layer.weight.initializer for layer in arch.layers} == {"torch_default"}
    assert all(
        layer.weight.sample_variance is None and not layer.weight.hypotheses
        for layer in arch.layers
    )
    report = initdiag.diagnose(model)
    assert report.basis == "law"
    assert "IND013" in {f.code for f in report.findings}
    with pytest.raises(UnsupportedArchitecture, match="meta device"):
        measure(model)


def test_ten_gigabytes_on_meta_take_no_memory():
    resource = pytest.importorskip("resource")
    with torch.device("meta"):
        model = mlp([4096] * 151)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(trace(model).layers) == 150
    unit = 1 if sys.platform == "darwin" else 1024
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit < 500e6


def test_wrappers_inside_the_model_do_not_run_the_original():
    """A compiled part's forward is bound to the user's own module; so is ``module.compile()``."""
    model = nn.Sequential(nn.DataParallel(nn.Linear(8, 16)), nn.ReLU(), nn.Linear(16, 4))
    touched = []
    model[0].module.register_forward_hook(lambda m, a, o: touched.append(m))
    model[2]._compiled_call_impl = lambda x: touched.append(x)
    assert trace(model).widths == (8, 16, 4)
    assert all(m is not model[0].module for m in touched)
    assert not [t for t in touched if isinstance(t, torch.Tensor)]


def test_compiled_models():
    inner = seeded(lambda: mlp([8, 16, 4]))
    part = nn.Sequential(torch.compile(inner, backend="eager"), nn.ReLU(), nn.Linear(4, 2))
    assert trace(torch.compile(inner, backend="eager")) == trace(inner)
    assert trace(part).widths == (8, 16, 4, 2)
    assert agreement(trace(part), measure(part, draws=512), level=0.002).agrees

    class Decorated(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 4)

        @torch.compile(backend="eager")
        def forward(self, x):
            return self.b(self.a(x).relu())

    assert trace(seeded(Decorated)).widths == (8, 16, 4)


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_the_law_is_that_of_the_computed_weight(wrap):
    model = nn.Sequential(wrap(seeded(lambda: nn.Linear(24, 32))), nn.ReLU(), nn.Linear(32, 4))
    layer = trace(model).layers[0]
    assert layer.name == "0.weight"
    assert layer.weight.sample_variance == pytest.approx(
        float(model[0].weight.detach().square().mean()), rel=1e-6
    )


def test_draws_with_a_spectral_norm_do_not_depend_on_chunks(monkeypatch):
    from initdiag.measuring import measure as measure_module

    wrap = parametrizations.spectral_norm
    model = seeded(
        lambda: nn.Sequential(wrap(nn.Linear(24, 32)), nn.ReLU(), nn.Linear(32, 4))
    ).double()
    before = {name: b.clone() for name, b in model.named_buffers()}
    whole = measure(model, draws=64).log_norms
    monkeypatch.setattr(measure_module, "_BUDGET", 1)
    np.testing.assert_allclose(measure(model, draws=64).log_norms, whole, rtol=0, atol=1e-12)
    assert all(torch.equal(b, before[name]) for name, b in model.named_buffers())


def test_a_tied_transpose_gets_the_transposed_signs():
    class Autoencoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(12, 8) / 3)

        def forward(self, x):
            return F.linear(F.relu(F.linear(x, self.w)), self.w.t())

    from initdiag.measuring.ensembles import random_numbers

    model = seeded(Autoencoder).double()
    x = torch.ones(1, 8, dtype=torch.float64)
    arch = trace(model, x)
    assert [gap.kind for gap in arch.gaps] == ["reused"]
    found = measure(model, x, draws=2, seed=5)
    signs = torch.from_numpy(random_numbers.signs(5, range(2), 0, 20)).double()
    for draw in range(2):
        flipped = Autoencoder().double()
        with torch.no_grad():
            flipped.w.copy_(signs[draw, 8:, None] * model.w * signs[draw, :8])
        u = random_numbers.directions(5, range(2), 8)[draw].double()
        jacobian = torch.func.jacrev(flipped)(x[0])
        assert found.log_norms[draw] == pytest.approx(
            float((jacobian @ u).square().sum().log().detach()), abs=1e-9
        )


def test_square_raw_weights_are_redrawn_the_right_way_round():
    """``x @ w`` with a square ``w``: a shape cannot tell it from its transpose."""

    class Raw(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.empty(6, 6))
            self.reset_parameters()

        def reset_parameters(self):
            nn.init.normal_(self.w)

        def forward(self, x):
            return x @ self.w

    from initdiag.measuring.ensembles import random_numbers
    from initdiag.measuring.ensembles.redraw import Source, reset_parameters
    from initdiag.tracing.guard import untouched

    model, x = seeded(Raw).double(), torch.ones(1, 6, dtype=torch.float64)
    found = measure(model, x, draws=2, method="redraw", init=reset_parameters, seed=3)
    for draw in range(2):
        with untouched():
            w = Source(model, ["w"], None, reset_parameters).draw(
                random_numbers.draw_seed(3, draw)
            )["w"]
        u = random_numbers.directions(3, range(2), 6)[draw].double()
        assert found.log_norms[draw] == pytest.approx(float((u @ w).square().sum().log()), abs=1e-9)


def test_a_side_branch_with_a_chains_weight_is_not_miscounted():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 4)

        def forward(self, x):
            return self.b(self.a(x).relu())

    class Side(Plain):
        def forward(self, x):
            self.seen = self.a(x).relu()
            return super().forward(x)

    found, expected = (measure(seeded(net), draws=64).log_norms for net in (Side, Plain))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_redraws_of_parametrised_weights(wrap):
    """``reset_parameters`` does nothing there, without a word; a factory draws them."""

    def build():
        return nn.Sequential(wrap(nn.Linear(16, 32)), nn.ReLU(), nn.Linear(32, 4))

    with pytest.raises(UnsupportedArchitecture, match=r"init leaves '0\.parametrizations"):
        measure(
            seeded(build),
            draws=4,
            method="redraw",
            init=lambda m: getattr(m, "reset_parameters", lambda: None)(),
        )
    fresh = measure(build, draws=400, method="redraw")
    signs = measure(seeded(build), draws=2048)
    assert abs(fresh.log_mean - signs.log_mean) < 4 * fresh.log_mean_se + 0.1
    assert fresh.log_variance == pytest.approx(signs.log_variance, rel=0.3)


class Stack(nn.Module):
    """One parameter holds all matrices."""

    def __init__(self, takes):
        super().__init__()
        self.w = nn.Parameter(torch.randn(4, 16, 16) / 3)
        self.takes = takes

    def forward(self, x):
        for w in self.takes(self.w):
            x = F.relu(x @ w)
        return x


@pytest.mark.parametrize(
    "takes",
    [
        lambda w: w,
        lambda w: [w[i] for i in range(4)],
        lambda w: [w.select(0, i) for i in range(4)],
        torch.unbind,
    ],
)
def test_a_stack_of_matrices_in_one_parameter(takes):
    model, x = seeded(lambda: Stack(takes)), torch.ones(4, 16)
    arch = trace(model, x)
    assert [layer.name for layer in arch.layers] == ["w[0]", "w[1]", "w[2]", "w[3]"]
    assert arch.gaps == ()
    found = measure(model, x, draws=2048)
    assert found.notes == ()
    assert agreement(arch, found, level=0.002).agrees


def test_a_low_rank_factor_pair_is_one_weight():
    class Factors(nn.Module):
        def __init__(self):
            super().__init__()
            self.u, self.v = nn.Parameter(torch.randn(64, 4)), nn.Parameter(torch.randn(4, 64))
            self.head = nn.Linear(64, 4)

        def forward(self, x):
            return self.head(F.relu(x @ (self.u @ self.v)))

    model = seeded(Factors)
    arch = trace(model, torch.ones(2, 64))
    assert [layer.name for layer in arch.layers] == ["u*v", "head.weight"]
    assert "no low-rank part" in arch.layers[0].weight.failed
    assert arch.unused == ()
    with pytest.raises(UnsupportedArchitecture, match="random signs cannot be put"):
        measure(model, torch.ones(2, 64), draws=8)


def test_names_of_computed_weights():
    assert computed_name({"fc.parametrizations.weight.original"}) == "fc.weight"
    assert (
        computed_name({"parametrizations.weight.original0", "parametrizations.weight.original1"})
        == "weight"
    )
    assert computed_name({"weight_g", "weight_v"}) == "weight"
    assert computed_name({"a.weight_orig"}) == "a.weight"
    assert computed_name({"u", "v"}) == "u*v"

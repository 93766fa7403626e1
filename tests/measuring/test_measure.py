"""Measuring against theory, against the definition, and against itself in other chunks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.styles import STYLES, mlp, seeded
from torch import nn

import initdiag
from initdiag import InvalidInput, UnsupportedArchitecture, measure, predict, trace
from initdiag.diagnosing.agreement import agreement
from initdiag.measuring import measure as measure_module
from initdiag.measuring.collect import RunningMoments
from initdiag.network.log_moments import LogMoments


@pytest.mark.parametrize("style", STYLES, ids=lambda s: s.name)
@pytest.mark.parametrize(("method", "draws"), [("signs", 2048), ("redraw", 128)])
def test_every_style_agrees_with_theory(style, method, draws):
    model = seeded(style.build, seed=1)
    arch = trace(model, input_size=style.input_size)
    found = measure(model, input_size=style.input_size, draws=draws, method=method, seed=1)
    assert found.method == method
    assert found.draws == len(found.log_norms) == draws
    test = agreement(arch, found, level=0.003)
    assert test.agrees, test


@pytest.mark.parametrize("init", ["he_normal", "orthogonal", "torch_default"])
def test_sign_flips_agree_for_every_initialiser(init):
    model = seeded(lambda: mlp([24, 32, 16, 32, 8], init=init))
    assert agreement(trace(model), measure(model, draws=8192), level=0.003).agrees


def jacobian_log_norm(model, x, u):
    """The definition, by reverse mode: ln||J u||^2 of one row."""
    jacobian = torch.func.jacrev(model)(x).reshape(-1, x.numel())
    return float((jacobian @ u.reshape(-1)).square().sum().log().detach())


def test_one_draw_against_the_definition():
    """Put the signs of a draw into real weights by hand, and take the Jacobian by reverse mode."""
    from initdiag.measuring.ensembles import random_numbers

    model = seeded(lambda: mlp([6, 9, 7, 4])).double()
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = measure(model, x, draws=5, seed=42)
    u = random_numbers.directions(42, range(5), 6).double()
    for draw in range(5):
        flipped = mlp([6, 9, 7, 4]).double()
        for stream, index in enumerate((0, 2, 4)):
            w, b = model[index].weight, model[index].bias
            signs = torch.from_numpy(
                random_numbers.signs(42, range(5), stream, sum(w.shape))[draw]
            ).double()
            s, r = signs[: w.shape[1]], signs[w.shape[1] :]
            with torch.no_grad():
                flipped[index].weight.copy_(r[:, None] * w * s)
                flipped[index].bias.copy_(r * b)
        expected = jacobian_log_norm(flipped, x[draw % 3], u[draw])
        assert found.log_norms[draw] == pytest.approx(expected, abs=1e-9)


def test_one_redraw_against_the_definition():
    from initdiag.measuring.ensembles import random_numbers

    def init(m):
        if isinstance(m, nn.Linear):
            nn.init.normal_(m.weight, std=0.4)
            nn.init.normal_(m.bias, std=0.1)

    model = seeded(lambda: mlp([5, 8, 3])).double()
    x = torch.ones(1, 5, dtype=torch.float64)
    found = measure(model, x, draws=3, method="redraw", init=init, seed=7)
    for draw in range(3):
        fresh = mlp([5, 8, 3]).double()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(random_numbers.draw_seed(7, draw))
            fresh.apply(init)
        u = random_numbers.directions(7, range(3), 5)[draw].double()
        assert found.log_norms[draw] == pytest.approx(jacobian_log_norm(fresh, x[0], u), abs=1e-9)


@pytest.mark.parametrize("method", ["signs", "redraw"])
def test_draws_do_not_depend_on_chunks_or_count(method, monkeypatch):
    model = seeded(lambda: mlp([12, 20, 16, 5])).double()
    draws = 700 if method == "signs" else 40
    whole = measure(model, draws=draws, method=method, seed=3).log_norms
    fewer = measure(model, draws=draws // 2, method=method, seed=3).log_norms
    monkeypatch.setattr(measure_module, "_BUDGET", 1 << 16)
    chunked = measure(model, draws=draws, method=method, seed=3).log_norms
    np.testing.assert_allclose(chunked, whole, rtol=0, atol=1e-12)
    np.testing.assert_allclose(fewer, whole[: draws // 2], rtol=0, atol=1e-12)
    assert not np.array_equal(whole, measure(model, draws=draws, method=method, seed=4).log_norms)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["signs", "redraw", "law"])
def test_draws_do_not_depend_on_the_number_of_threads(method):
    model = seeded(lambda: mlp([64, 300, 300, 5])).double()
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(measure(model, draws=300, method=method, seed=3).log_norms)
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_allclose(*found, rtol=0, atol=1e-12)


def test_what_cannot_be_stacked_is_drawn_one_by_one_and_said():
    stacked = measure(seeded(lambda: mlp([6, 8, 3])), draws=8, method="redraw")
    looped = measure(seeded(lambda: nn.Sequential(nn.Conv1d(6, 8, 1), nn.Flatten(), nn.Linear(8, 3))), torch.randn(2, 6, 1), draws=8, method="redraw")  # fmt: skip
    assert stacked.notes == ()
    assert looped.notes == (
        "drawn one by one: more than linear layers and batch normalisation cannot be stacked",
    )


def test_dropout_masks_do_not_depend_on_chunks(monkeypatch):
    model = seeded(
        lambda: nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 4))
    ).double()
    whole = measure(model, draws=600, seed=3).log_norms
    monkeypatch.setattr(measure_module, "_BUDGET", 1)
    np.testing.assert_allclose(
        measure(model, draws=600, seed=3).log_norms, whole, rtol=0, atol=1e-12
    )
    assert agreement(trace(model), measure(model, draws=8192), level=0.003).agrees


@pytest.mark.slow
def test_depth_300_under_the_default_is_measured_not_called_dead():
    model = seeded(lambda: mlp([64] * 301))
    found = measure(model, draws=64, gradients=False)
    assert found.dead_fraction == 0
    assert found.log_mean < -530
    assert agreement(trace(model), found, level=0.003).agrees


@pytest.mark.slow
def test_tiny_and_huge_weights_stay_in_range():
    """||Ju||^2 of about 1e-5000 and 1e+3000 in single precision, biases zero and not."""
    for gain, init, sign in (
        (1e-13, "he_normal", -1),
        (1e8, "he_normal", 1),
        (1e-3, "torch_default", -1),
    ):
        model = seeded(lambda gain=gain, init=init: mlp([16] * 201, init=init, gain=gain))
        found = measure(model, draws=64, gradients=False)
        assert np.isfinite(found.log_norms).mean() > 0.9
        assert sign * found.log_mean > 2000
        assert found.log_mean == pytest.approx(
            predict(trace(model)).log_mean, abs=6 * found.log_mean_se + 2
        )


def test_width_one_layers_die_as_often_as_predicted():
    model = seeded(lambda: mlp([8, 1, 1, 8], init="he_normal"))
    pred, found = predict(trace(model)), measure(model, draws=4096)
    share_se = math.sqrt(0.75 * 0.25 / 4096)
    assert pred.dead_probability == pytest.approx(0.75)
    assert abs(found.dead_fraction - 0.75) < 4 * share_se
    assert agreement(trace(model), found, level=0.001).agrees


def test_tied_weights_get_one_pair_of_signs():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Linear(12, 12)

        def forward(self, x):
            return self.w(self.w(x).relu())

    from initdiag.measuring.ensembles import random_numbers

    model = seeded(Tied).double()
    x = torch.ones(1, 12, dtype=torch.float64)
    found = measure(model, x, draws=2, seed=5)
    signs = torch.from_numpy(random_numbers.signs(5, range(2), 0, 24)).double()
    for draw in range(2):
        flipped = Tied().double()
        s, r = signs[draw, :12], signs[draw, 12:]
        with torch.no_grad():
            flipped.w.weight.copy_(r[:, None] * model.w.weight * s)
            flipped.w.bias.copy_(r * model.w.bias)
        u = random_numbers.directions(5, range(2), 12)[draw].double()
        assert found.log_norms[draw] == pytest.approx(jacobian_log_norm(flipped, x[0], u), abs=1e-9)


def test_a_residual_network_is_measured_in_both_ways():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(24)
            self.blocks = nn.ModuleList([nn.Linear(24, 24) for _ in range(4)])

        def forward(self, x):
            for block in self.blocks:
                x = x + block(self.norm(x)).relu()
            return x

    model = seeded(Residual)
    signs, redraw = measure(model, draws=2048), measure(model, draws=512, method="redraw")
    gap = abs(signs.log_mean - redraw.log_mean)
    assert gap < 4 * math.hypot(signs.log_mean_se, redraw.log_mean_se) + 0.05
    assert signs.log_variance == pytest.approx(redraw.log_variance, rel=0.35)
    assert [layer.name for layer in signs.layers] == [f"blocks.{i}.weight" for i in range(4)]


def test_rows_that_mix_are_refused():
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))
    with pytest.raises(UnsupportedArchitecture, match="rows of a batch are mixed"):
        measure(model, torch.randn(6, 8))
    assert measure(model.eval(), torch.randn(6, 8), draws=64).draws == 64


def test_a_factory_is_redrawn():
    found = measure(lambda: mlp([16, 32, 8], init="he_normal"), draws=2048, method="redraw")
    pred = predict([16, 32, 8], init="he_normal")
    assert abs(found.log_mean - pred.log_mean) < 4 * found.log_mean_se
    assert abs(found.log_variance - pred.log_variance) < 4 * found.log_variance_se


def test_redraws_need_an_initialiser():
    model = seeded(lambda: mlp([32, 32, 8], init="he_normal"))
    assert measure(model, method="redraw", draws=4).draws == 4
    with torch.no_grad():
        model[0].weight.mul_(1.37)
    with pytest.raises(UnsupportedArchitecture, match="Pass init="):
        measure(model, method="redraw", draws=4)


def test_parameters_that_init_leaves_keep_their_values():
    def only_weights(m):
        if isinstance(m, nn.Linear):
            nn.init.kaiming_normal_(m.weight, nonlinearity="relu")

    found = measure(seeded(lambda: mlp([16, 32, 8])), draws=64, method="redraw", init=only_weights)
    assert found.dead_fraction == 0
    assert any("0.bias" in note for note in found.notes)


def test_a_fixed_direction():
    model = seeded(lambda: mlp([6, 20, 3], init="he_normal"))
    u = torch.zeros(6)
    u[2] = 5.0
    found = measure(model, draws=4096, direction=u)
    assert abs(found.log_mean - predict(trace(model)).log_mean) < 0.3
    with pytest.raises(InvalidInput, match="direction"):
        measure(model, direction=torch.zeros(6))


def test_layers_add_up():
    model = seeded(lambda: mlp([16, 24, 24, 5]))
    found = measure(model, draws=512)
    assert [layer.name for layer in found.layers] == ["0.weight", "2.weight", "4.weight"]
    assert found.layers[-1].tangent_log_mean == pytest.approx(found.log_mean, abs=1e-6)
    assert found.layers[-1].tangent_log_variance == pytest.approx(found.log_variance, rel=1e-5)


def test_half_precision_is_measured_in_single():
    model = seeded(lambda: mlp([16, 32, 32, 8], init="he_normal")).to(torch.bfloat16)
    assert agreement(trace(model), measure(model, draws=4096), level=0.003).agrees


def test_standard_errors_are_right():
    """The spread of mean and variance over repeated samples is what the standard errors say."""
    rng = np.random.default_rng(0)
    samples = np.log(rng.chisquare(3, (4000, 200)))
    moments = [LogMoments.of(s) for s in samples]
    assert np.std([m.mean for m in moments]) == pytest.approx(
        np.mean([m.mean_se for m in moments]), rel=0.05
    )
    assert np.std([m.variance for m in moments]) == pytest.approx(
        np.mean([m.variance_se for m in moments]), rel=0.08
    )


def test_dead_draws_are_counted_apart():
    moments = LogMoments.of(np.array([0.0, 1.0, 2.0, 3.0, -np.inf]))
    assert moments.mean == 1.5
    assert moments.dead_fraction == pytest.approx(0.2)
    assert math.isnan(LogMoments.of(np.array([-np.inf])).mean)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": 0}, "draws: a positive integer"),
        ({"draws": 2.5}, "draws"),
        ({"seed": -1}, "seed: a non-negative int"),
        ({"seed": 0.5}, "seed"),
        ({"seed": True}, "seed"),
        ({"method": "magic"}, "method: one of signs, redraw, law"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InvalidInput, match=message):
        initdiag.measure(mlp([4, 4]), **options)


def test_a_numpy_integer_is_a_seed():
    model = seeded(lambda: mlp([4, 8, 4]))
    found = measure(model, draws=np.int32(8), seed=np.int64(3))
    assert np.array_equal(found.log_norms, measure(model, draws=8, seed=3).log_norms)
    assert type(found.seed) is int


def test_a_forward_that_refuses_the_measured_batch_is_said():
    class Picky(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.norm = nn.Linear(6, 4), nn.LayerNorm(4)

        def forward(self, x):
            if len(x) > 2:
                raise KeyError("at most two rows")
            return self.norm(self.a(x))

    with pytest.raises(UnsupportedArchitecture, match=r"does not run on 4 rows .*at most two rows"):
        measure(seeded(Picky), draws=4)


class Ending(nn.Module):
    """A chain whose output is ended in some way."""

    def __init__(self, end, outputs=1):
        super().__init__()
        self.net, self.end = mlp([8, 16, outputs]), end

    def forward(self, x):
        return self.end(self.net(x))


SINGLE = {
    "squeeze(-1)": lambda y: y.squeeze(-1),
    "squeeze()": lambda y: y.squeeze(),
    "[:, 0]": lambda y: y[:, 0],
}
MIXED = {
    "a sum": lambda y: y.sum(),
    "a mean over the batch": lambda y: y.mean(0),
    "transposed": lambda y: y.T,
}


@pytest.mark.parametrize("end", SINGLE)
@pytest.mark.parametrize("method", ["signs", "redraw", "law"])
def test_one_number_a_row_is_an_output_of_size_one(end, method):
    def found(how):
        return measure(seeded(lambda: Ending(how)), draws=64, method=method).log_norms

    plain = found(lambda y: y)
    assert np.isfinite(plain).all()
    np.testing.assert_allclose(found(SINGLE[end]), plain, rtol=1e-5)


@pytest.mark.parametrize("end", SINGLE)
def test_one_number_a_row_passes_every_stage(end):
    model = seeded(lambda: Ending(SINGLE[end]))
    assert initdiag.measure_spectrum(model, draws=2).output_size == 1
    assert initdiag.diagnose(model, draws=64).verdict is initdiag.Verdict.HEALTHY
    loss = measure(model, torch.randn(4, 8), draws=8, loss_fn=F.mse_loss, target=torch.zeros(4))
    assert math.isfinite(loss.layers[0].weight_gradient.log_mean)
    initdiag.repair(model, seed=0)


@pytest.mark.parametrize("end", MIXED)
@pytest.mark.parametrize("method", ["signs", "redraw", "law"])
def test_an_output_that_mixes_the_rows_is_refused(end, method):
    model = seeded(lambda: Ending(MIXED[end], outputs=3))
    with pytest.raises(UnsupportedArchitecture, match="for a batch of 4 rows: it mixes the rows"):
        measure(model, draws=8, method=method)
    assert initdiag.diagnose(model, draws=8).verdict is initdiag.Verdict.NO_VERDICT


class Scaled(nn.Module):
    """A residual network in float64, every block of which is scaled."""

    def __init__(self, scale):
        super().__init__()
        self.inp, self.out = nn.Linear(8, 16), nn.Linear(16, 3)
        self.blocks, self.scale = nn.ModuleList(nn.Linear(16, 16) for _ in range(4)), scale

    def forward(self, x):
        x = self.inp(x)
        for block in self.blocks:
            x = self.scale * (torch.relu(block(x)) + x)
        return self.out(x)


@pytest.mark.parametrize("scale", [1e-46, 1e46])
@pytest.mark.parametrize("method", ["signs", "redraw", "law"])
@pytest.mark.slow
def test_off_a_chain_only_zeros_are_dead(scale, method):
    """Norms of 1e-184 and 1e184, whose squares leave float64: biases are zero, so that the scale only shifts the logs."""

    def found(scale):
        model = seeded(lambda: Scaled(scale)).double()
        with torch.no_grad():
            [layer.bias.zero_() for layer in model.modules() if isinstance(layer, nn.Linear)]
        return measure(
            model, draws=64, method=method, init=_without_biases if method == "redraw" else None
        )

    plain, extreme = found(1.0), found(scale)
    shift = 8 * math.log(scale)
    np.testing.assert_allclose(extreme.log_norms - shift, plain.log_norms, atol=1e-9)
    last, plain_last = extreme.layers[-1], plain.layers[-1]
    assert last.tangent_log_mean - shift == pytest.approx(plain_last.tangent_log_mean)
    assert last.activation_log_mean - shift == pytest.approx(plain_last.activation_log_mean)
    if method != "law":
        first, plain_first = extreme.layers[0], plain.layers[0]
        expected = plain_first.weight_gradient.log_mean
        assert first.weight_gradient.log_mean - shift == pytest.approx(expected)


def _without_biases(module):
    if isinstance(module, nn.Linear):
        module.reset_parameters()
        nn.init.zeros_(module.bias)


@pytest.mark.parametrize("method", ["signs", "redraw", "law"])
def test_an_overflow_of_the_forward_is_noted_and_makes_the_mean_infinite(method):
    model = seeded(lambda: Scaled(1e80)).double()
    found = measure(model, draws=16, method=method)
    assert (found.overflow_fraction, found.dead_fraction, found.log_mean) == (1.0, 0.0, math.inf)
    assert "16 of 16 draws overflow: their norms are infinite, and so is the mean" in found.notes
    assert found.layers[-1].tangent_log_mean == math.inf
    report = initdiag.diagnose(model, draws=16, method=method)
    assert report.verdict is initdiag.Verdict.EXPLODING
    assert initdiag.Report.from_dict(report.to_dict()).to_dict() == report.to_dict()


def test_the_law_takes_inputs_of_any_size():
    model = seeded(lambda: mlp([8, 16, 16, 3], init="he_normal"))
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    plain, large = (measure(model, scale * x, draws=32, method="law") for scale in (1.0, 1e30))
    np.testing.assert_allclose(large.log_norms, plain.log_norms, rtol=1e-4)


def test_moments_with_one_overflow():
    values = np.array([0.0, 1.0, 2.0, 3.0, -math.inf, math.inf])
    moments = LogMoments.of(values)
    assert (moments.mean, moments.count, moments.dead_fraction) == (math.inf, 4, 1 / 6)
    assert math.isnan(moments.variance)
    running = RunningMoments()
    for part in np.split(values[[0, 5, 1, 2, 4, 3]], 2):
        running.add(part)
    assert running.mean == math.inf
    assert math.isnan(running.variance)

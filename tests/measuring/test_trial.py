"""A trial: real steps, compared with a plain training loop; the user's things stay as they are."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.untouched import assert_same, random_states, state
from torch import nn
from torch.nn import functional

import initdiag
from initdiag import InvalidInput, UnsupportedArchitecture
from initdiag.measuring.trial import tried
from initdiag.measuring.trial_plan import TrialPlan
from initdiag.measuring.trial_record import LEAST_FALL, Trial, fall_of
from initdiag.tracing.guard import untouched
from initdiag.tracing.inputs import subject_of
from initdiag.tracing.replica import own_modes
from initdiag.tracing.trace import trace_subject


def trial(model, x, steps=12, *, input_size=None, **plan) -> Trial:
    with untouched(quiet=True), own_modes():
        subject = subject_of(model, x, input_size, None)
        return tried(TrialPlan(steps, **plan), subject, trace_subject(subject), 0)


def net(inputs=6, width=16, outputs=3):
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, outputs))


def batch(rows=12, inputs=6, classes=3):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(rows, inputs, generator=generator)
    return x, torch.randint(classes, (rows,), generator=generator)


def plain_loop(model, x, y, optimizer, function, steps):
    """Losses and squared gradients of the first matrix, by the loop that everyone writes."""
    losses, squares = [], []
    for _ in range(steps):
        model.zero_grad()
        loss = function(model(x), y)
        loss.backward()
        losses.append(loss.item())
        squares.append(model[0].weight.grad.double().square().sum().item())
        optimizer.step()
    return [*losses, function(model(x), y).item()], squares


OPTIMIZERS = {
    "groups of sgd": lambda m: torch.optim.SGD(
        [{"params": m[0].parameters(), "lr": 0.02}, {"params": m[2].parameters()}],
        lr=0.05, momentum=0.7, nesterov=True, weight_decay=0.01,
    ),
    "adamw": lambda m: torch.optim.AdamW(m.parameters(), lr=0.003, betas=(0.8, 0.9), amsgrad=True),
    "rmsprop": lambda m: torch.optim.RMSprop(m.parameters(), lr=0.002, centered=True),
    "lbfgs": lambda m: torch.optim.LBFGS(m.parameters(), lr=0.1, max_iter=1),
    "a part": lambda m: torch.optim.SGD(m[2].parameters(), lr=0.1),
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "lbfgs"])
def test_steps_are_those_of_a_plain_loop(name):
    torch.manual_seed(1)
    model, other, (x, y) = net(), net(), batch()
    other.load_state_dict(model.state_dict())
    found = trial(model, x, 6, target=y, optimizer=OPTIMIZERS[name](model))
    losses, squares = plain_loop(other, x, y, OPTIMIZERS[name](other), functional.cross_entropy, 6)
    np.testing.assert_allclose(found.losses[0], losses, rtol=2e-5)
    np.testing.assert_allclose(found.layers[0].log_gradients, np.log(squares), rtol=1e-4, atol=1e-4)


def test_an_optimiser_that_asks_for_a_closure_steps():
    torch.manual_seed(1)
    model, (x, y) = net(), batch()
    found = trial(model, x, 4, target=y, optimizer=OPTIMIZERS["lbfgs"](model))
    assert found.losses[0][-1] < found.losses[0][0]


def test_the_learning_rate_of_a_group_is_its_own():
    """A group with rate 0 is not moved; the other is."""
    model, (x, y) = net(), batch()
    groups = [{"params": model[0].parameters(), "lr": 0.0}, {"params": model[2].parameters()}]
    found = trial(model, x, 3, target=y, optimizer=torch.optim.SGD(groups, lr=0.1))
    assert np.isneginf(found.layers[0].log_updates).all()
    assert np.isfinite(found.layers[1].log_updates).all()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_model_optimiser_and_generators_stay(name):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.5), nn.Linear(16, 3))
    x, y = batch()
    model(x).sum().backward()
    optimizer = OPTIMIZERS[name](model)
    optimizer.step(lambda: torch.zeros(()))
    options = repr(optimizer.state_dict())
    before, states, given = state(model), random_states(), (x.clone(), y.clone())
    trial(model, x, 3, target=y, optimizer=optimizer)
    assert_same(before, state(model))
    assert repr(optimizer.state_dict()) == options
    after = random_states()
    assert torch.equal(states[0], after[0])
    assert np.array_equal(states[1], after[1])
    assert states[2] == after[2]
    assert torch.equal(x, given[0])
    assert torch.equal(y, given[1])


def test_a_schedule_is_ignored_and_said():
    model, (x, y) = net(), batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    assert (
        "schedule is ignored: it stays at 0.1"
        in trial(model, x, 2, target=y, optimizer=optimizer).notes[0]
    )


def test_a_factory_is_tried_on_eight_networks_another_models_optimiser_serves():
    x, y = batch()
    optimizer = torch.optim.SGD(net().parameters(), lr=0.1, momentum=0.9)
    found = trial(net, x, 20, target=y, optimizer=optimizer)
    assert found.draws == 8
    assert len({losses[0] for losses in found.losses}) == 8
    assert found.optimizer == "SGD(lr=0.1, momentum=0.9)"
    assert "another model's" in found.notes[0]
    assert found.share_se == pytest.approx(math.sqrt(found.risk * (1 - found.risk) / 8))


def test_names_build_the_optimiser():
    model, (x, y) = net(), batch()
    found = trial(model, x, 2, target=y, optimizer="adamw", lr=0.01)
    assert (found.optimizer, found.made_up) == ("AdamW(lr=0.01)", ())
    found = trial(model, x, 2, target=y)
    assert (found.optimizer, found.made_up) == ("SGD(lr=0.1)", ("a learning rate of 0.1",))


@pytest.mark.parametrize("shape", [(8, 3), (8, 5, 3), (8, 3, 4, 4), (8, 1)])
def test_made_up_labels_fit_the_output(shape):
    class Spread(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, math.prod(shape[1:]))

        def forward(self, x):
            return self.layer(x).reshape(len(x), *shape[1:])

    found = trial(Spread(), batch(8)[0], 3, loss="classification", lr=0.1)
    assert found.made_up == ("random labels",)
    assert found.losses[0][-1] < found.losses[0][0]


def test_the_constant_guess_is_the_best_one():
    model, (x, y) = net(), batch()
    shares = y.bincount().double() / len(y)
    entropy = -(shares * shares.log()).sum().item()
    assert trial(model, x, 1, target=y).constant_loss == pytest.approx(entropy, rel=1e-3)
    values = torch.randn(12, 3)
    of_squares = trial(model, x, 1, target=values).constant_loss
    assert of_squares == pytest.approx(values.var(0, correction=0).mean().item(), rel=1e-3)
    of_own = trial(model, x, 1, target=values, loss_fn=lambda out, t: (out - t).abs().mean())
    best = (values - values.median(0).values).abs().mean().item()
    assert of_own.constant_loss == pytest.approx(best, rel=0.05)


def test_targets_fit_the_usual_losses_and_stay_as_they_are_for_the_users_own():
    model, (x, _) = net(outputs=1), batch()
    y = torch.randn(12)
    usual = trial(model, x, 1, target=y, lr=0.1)
    assert usual.losses[0][0] == pytest.approx((model(x).squeeze(1) - y).square().mean().item())
    with pytest.warns(UserWarning, match="broadcast"):
        own = trial(model, x, 1, target=y, loss_fn=nn.MSELoss(), lr=0.1)
    with pytest.warns(UserWarning, match="broadcast"):
        wanted = nn.MSELoss()(model(x), y).item()
    assert own.losses[0][0] == pytest.approx(wanted)
    labels = trial(net(), x, 1, target=(torch.arange(12) % 3)[:, None], lr=0.1)
    assert labels.constant_loss == pytest.approx(math.log(3), rel=1e-3)


def test_what_forward_returns_is_the_losss():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, x):
            return {"scores": self.layer(x), "name": "a"}

    model, (x, y) = Named(), batch()
    found = trial(
        model,
        x,
        5,
        target=y,
        loss_fn=lambda out, y: functional.cross_entropy(out["scores"], y),
        lr=0.1,
    )
    assert found.losses[0][0] == pytest.approx(
        functional.cross_entropy(model(x)["scores"], y).item()
    )
    assert found.losses[0][-1] < found.losses[0][0]
    judged = trial(model, x, 5, target=y, lr=0.1)
    np.testing.assert_allclose(judged.losses[0], found.losses[0], rtol=1e-6)


def test_frozen_tied_and_shown(capsys):
    model, (x, y) = net(8, 8, 8), batch(12, 8, 8)
    model[2].weight = model[0].weight
    model[0].bias.requires_grad_(False)
    with untouched(quiet=True), own_modes():
        subject = subject_of(model, x, None, None)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        plan = TrialPlan(3, y, None, optimizer)
        found = tried(plan, subject, trace_subject(subject), 0, progress=True)
    assert [layer.name for layer in found.layers] == ["0.weight"]
    assert found.losses[0][-1] < found.losses[0][0]
    assert capsys.readouterr().out == ""


def test_an_interrupt_returns_what_there_is(monkeypatch):
    calls = []

    def loss(out, y):
        calls.append(1)
        if out.requires_grad and len(calls) > 300:
            raise KeyboardInterrupt
        return functional.cross_entropy(out, y)

    x, y = batch()
    found = trial(net(), x, 5000, target=y, loss_fn=loss, lr=1e-6)
    assert (found.stopped, found.starts, found.is_cut) == ("interrupted", None, True)


def test_a_linear_teacher_has_variance_one():
    found = trial(net(outputs=2), batch()[0], 1, loss="regression", lr=0.01)
    assert found.made_up == ("targets of a random linear function",)
    assert found.constant_loss == pytest.approx(1.0, rel=1e-3)


def test_a_batch_brings_its_targets():
    model, (x, y) = net(), batch()
    of_pair = trial(model, (x, y), 2, lr=0.1)
    of_arrays = trial(model, x, 2, lr=0.1, target=y.numpy())
    assert of_pair.made_up == ()
    assert of_pair == of_arrays or np.array_equal(of_pair.losses[0], of_arrays.losses[0])


def test_a_loss_of_the_model_and_its_terms():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1)), torch.randn(12, 2)

    def residual(model, x):
        u = model(x.requires_grad_())
        (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        return {"equation": 1e4 * slope.square().mean(), "boundary": u.square().mean()}

    found = trial(model, x, 5, loss_fn=residual, optimizer="adam", lr=1e-3)
    assert [term.name for term in found.terms] == ["equation", "boundary"]
    assert math.isnan(found.constant_loss)
    terms = residual(model, x.clone())
    for term, one in zip(terms.values(), found.terms, strict=True):
        grads = torch.autograd.grad(term, [model[0].weight, model[2].weight], retain_graph=True)
        squares = [grad.double().square().sum().item() for grad in grads]
        np.testing.assert_allclose(one.layers, np.log(squares), rtol=1e-4)
        assert one.log_gradient == pytest.approx(math.log(sum(squares)), rel=1e-4)
    assert x.requires_grad is False


def test_numbers_that_overflow_end_it():
    model, (x, y) = net(), batch()
    found = trial(model, 1e4 * x, 20, target=y, lr=10.0)
    assert found.stopped == "not finite"
    assert found.nonfinite_step is not None
    assert found.starts is False
    assert found.steps < 20


def test_dead_rows_and_bands():
    torch.manual_seed(0)
    model, (x, y) = net(64, 64), batch(32, 64)
    with torch.no_grad():
        model[0].bias[:16] = -1e6  # these units are closed for every row
    assert trial(model, x, 2, target=y).layers[0].dead_before == 0.25
    model = net(64, 64)
    for layer in trial(model, x, 2, target=y).layers:
        assert layer.low < layer.log_gradients[0] < layer.high
    deep = nn.Sequential(*(nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64)) for _ in range(2)))
    assert all(math.isnan(layer.low) for layer in trial(deep, x, 2).layers)


@pytest.mark.parametrize(("steps", "starts"), [(3, None), (49, None), (50, False)])
def test_fewer_steps_than_the_studys_do_not_tell_that_it_does_not_start(steps, starts):
    x, y = batch()
    assert trial(net(), x, steps, target=y, lr=1e-9).starts is starts


def test_a_frozen_module_is_not_tried():
    with pytest.raises(UnsupportedArchitecture, match="no parameter is trained"):
        trial(net().requires_grad_(False), batch()[0], 3)


def test_it_ends_when_it_is_clear():
    torch.manual_seed(0)
    x, y = batch()
    found = trial(net(width=64), x, 400, target=y, optimizer="adam", lr=0.01)
    assert found.stopped == "clear"
    assert 10 < found.steps < 100


def test_it_ends_when_time_is_up(monkeypatch):
    monkeypatch.setattr("initdiag.measuring.trial.BUDGET", 0.0)
    x, y = batch()
    found = trial(net, x, 50, target=y, lr=1e-6)
    assert (found.draws, found.steps, found.stopped, found.starts) == (1, 1, "time", None)


def test_the_fall_of_a_loss():
    assert fall_of(np.array([4.0, 1.0]), 2.0) == 0.5
    assert fall_of(np.array([1.0, 0.5]), 2.0) == 0.5
    assert fall_of(np.array([1.0, 0.5]), math.nan) == 0.5
    assert fall_of(np.array([1.0, 0.5]), 1e-9) == 0.5
    assert fall_of(np.array([1.0, math.nan]), 2.0) == -math.inf
    assert fall_of(np.array([-1.0, -2.0]), math.nan) == 1.0
    assert 0 < LEAST_FALL < 0.5


FAULTS = {
    "a loss that raises": ({"loss_fn": lambda out, y: 1 / 0}, InvalidInput, "ZeroDivisionError"),
    "no scalar": ({"loss_fn": lambda out, y: out}, InvalidInput, "not a scalar"),
    "no gradient": (
        {"loss_fn": lambda out, y: out.detach().sum()}, UnsupportedArchitecture, "no gradient|depend",
    ),
    "an unknown optimiser": ({"optimizer": "sdg"}, InvalidInput, "optimizer"),
    "targets of other rows": ({"target": torch.zeros(5, dtype=torch.long)}, InvalidInput, "loss_fn"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_said(name):
    plan, kind, text = FAULTS[name]
    x, y = batch()
    with pytest.raises(kind, match=text):
        trial(net(), x, 2, **{"target": y, **plan})


@pytest.mark.parametrize("steps", [0, -1, 2.5, "50"])
def test_steps_are_counted(steps):
    with pytest.raises(InvalidInput, match="trial"):
        initdiag.diagnose(net(), trial=steps)


def test_weights_without_values_are_not_tried():
    with pytest.raises(UnsupportedArchitecture, match="meta"):
        trial(net().to("meta"), None)


def test_tokens_are_trained_from_the_embedding_on():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(20, 8), nn.Linear(8, 4)

        def forward(self, tokens):
            return self.head(self.table(tokens).mean(1))

    tokens = torch.randint(20, (16, 5), generator=torch.Generator().manual_seed(0))
    found = trial(Words(), tokens, 4, target=torch.arange(16) % 4, optimizer="adam", lr=0.01)
    assert [layer.name for layer in found.layers] == ["table.weight", "head.weight"]
    assert np.isfinite(found.layers[0].log_updates).all()

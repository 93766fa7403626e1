"""Modules as people bring them: several inputs, tokens, masks, batches of every kind, and outputs
of which one is judged. What the numbers should be is computed by plain autograd."""

from __future__ import annotations

import collections
import dataclasses
import math

import numpy as np
import pytest
import torch
from support.styles import mlp, seeded
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import initdiag
from initdiag import InvalidInput, measure, trace
from initdiag.tracing.inputs import subject_of


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.places, self.tokens = nn.Embedding(6, 8), nn.Embedding(50, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
        self.head = nn.Linear(8, 5)

    def forward(self, input_ids, attention_mask=None):
        places = self.places(torch.arange(input_ids.shape[1]))  # called first, without rows
        h = self.tokens(input_ids) + places
        out = self.head(self.block(h, src_key_padding_mask=attention_mask))
        return {"loss": out.sum(), "logits": out, "hidden": h}


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(17 + 6, 64), nn.Linear(64, 1)

    def forward(self, obs, act):
        return self.b(torch.relu(self.a(torch.cat([obs, act], -1))))


class DictInput(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(10, 32), nn.Linear(32, 2)

    def forward(self, batch):
        return self.b(torch.relu(self.a(torch.cat([batch["numbers"], batch["flags"].float()], -1))))


class ActorCritic(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.actor, self.critic = nn.Linear(8, 64), nn.Linear(64, 3), nn.Linear(64, 1)

    def forward(self, x):
        h = torch.tanh(self.body(x))
        return torch.distributions.Normal(self.actor(h), 1.0), self.critic(h)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def jacobian(function, x):
    """The plain Jacobian of ``function`` at ``x``, as a matrix."""
    found = torch.autograd.functional.jacobian(function, x)
    return found.reshape(-1, x.numel())


def door_jacobian(model, *args, **options):
    subject = subject_of(model, *args, None, None, **options)
    return jacobian(subject.module, subject.example), subject


def test_tokens_are_perturbed_at_the_embedding_that_looks_them_up():
    model, ids = seeded(Tokens), torch.arange(18).reshape(3, 6)
    mask = torch.zeros(3, 6, dtype=torch.bool)
    mask[1, 4:] = True
    found, subject = door_jacobian(model, ids, kwargs={"attention_mask": mask})
    assert subject.said == (
        "perturbed: what the embedding 'tokens' returns; the input (input_ids) holds integers",
    )

    def plain(rows):
        hook = model.tokens.register_forward_hook(lambda module, args, out: rows)
        out = model(ids, mask)["logits"]
        hook.remove()
        return out

    torch.testing.assert_close(subject.example, model.tokens(ids).detach())
    torch.testing.assert_close(found, jacobian(plain, model.tokens(ids).detach()))
    assert trace(model, ids).ways[-1] == "judged: output['logits']"


def test_arguments_are_dealt_out_with_their_rows():
    """Draw i is of row i mod 3: alone it gives the same, with the mask of that row."""
    model, ids = seeded(Tokens), torch.arange(18).reshape(3, 6)
    mask = torch.arange(6)[None] >= torch.tensor([[6], [4], [2]])
    together = measure(model, ids, example_kwargs={"attention_mask": mask}, draws=12).log_norms
    for row in range(3):
        kwargs = {"attention_mask": mask[row : row + 1]}
        alone = measure(model, ids[row : row + 1], example_kwargs=kwargs, draws=12).log_norms
        np.testing.assert_allclose(together[row::3], alone[row::3], atol=1e-9)
        assert not np.allclose(together[(row + 1) % 3 :: 3], alone[(row + 1) % 3 :: 3])


@pytest.mark.slow
def test_the_size_behind_an_embedding_is_that_of_redraws():
    """Of what the first look's embedding returned, which stays; all weights are drawn."""
    ids, count = torch.arange(6).reshape(1, 6), 60
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = measure(Tokens, ids, draws=count, method="redraw")
    rows, logs = seeded(Tokens, 0).tokens(ids).detach(), []
    for seed in range(count):
        model = seeded(Tokens, seed)

        def plain(h, model=model):
            return model.head(model.block(h + model.places(torch.arange(6))))

        u = normal(rows.numel(), seed=1000 + seed)
        with sdpa_kernel(SDPBackend.MATH):
            _, tangent = torch.func.jvp(plain, (rows,), ((u / u.norm()).view_as(rows),))
        logs.append(math.log(float(tangent.detach().square().sum())))
    error = math.hypot(found.log_mean_se, np.std(logs) / math.sqrt(count))
    assert abs(found.log_mean - np.mean(logs)) < 4 * error


def test_several_inputs_are_perturbed_together_or_one_by_name():
    model, obs, act = seeded(Critic), normal(8, 17), normal(8, 6, seed=1)
    both = jacobian(lambda x: model(x[:, :17], x[:, 17:]), torch.cat([obs, act], 1))
    for args, options in (
        ((obs,), {"args": (act,)}),
        (((obs, act),), {}),
        (({"act": act, "obs": obs},), {}),
        ((None,), {"kwargs": {"obs": obs, "act": act}}),
        ((collections.namedtuple("Batch", "obs act")(obs, act),), {}),
    ):
        found, subject = door_jacobian(model, *args, **options)
        names = subject.said[0]
        if "act, obs" in names:
            found = found.reshape(-1, 8, 23).roll(-6, 2).reshape(-1, 8 * 23)
        torch.testing.assert_close(found, both)
        assert "together" in names
    for named in ("act", 1):
        found, subject = door_jacobian(model, (obs, act), perturbed=named)
        torch.testing.assert_close(found, jacobian(lambda a: model(obs, a), act))
        assert subject.said == ("perturbed: act; kept as they are: obs",)
    with pytest.raises(InvalidInput, match="name or the position of an argument, of obs, act"):
        trace(model, (obs, act), input="reward")


def test_several_shapes_are_inputs_too():
    arch = trace(seeded(Critic), input_size=[(2, 17), (2, 6)])
    assert arch.input_size == 23
    assert arch.chain is not None
    assert arch.chain.widths == (23, 64, 1)
    assert initdiag.diagnose(Critic(), input_size=[(2, 17), (2, 6)], draws=64).ok


def test_of_a_dict_the_floating_entries_are_perturbed():
    model = seeded(DictInput)
    numbers, flags = normal(8, 6), torch.eye(8, 4, dtype=torch.long)
    found, subject = door_jacobian(model, {"numbers": numbers, "flags": flags})
    plain = jacobian(lambda x: model({"numbers": x, "flags": flags}), numbers)
    torch.testing.assert_close(found, plain)
    assert subject.said == ("perturbed: batch.numbers; kept as they are: batch.flags",)


OUTPUTS = {
    "the first": (None, lambda out: out[0].mean, "output[0].mean"),
    "an index": (1, lambda out: out[1], "output[1]"),
    "a function": (lambda out: out[0].mean, lambda out: out[0].mean, "output(...)"),
}


@pytest.mark.parametrize(("output", "meant", "words"), OUTPUTS.values(), ids=OUTPUTS)
def test_outputs_are_chosen(output, meant, words):
    model, x = seeded(ActorCritic), normal(8, 8)
    found, _ = door_jacobian(model, x, output=output)
    torch.testing.assert_close(found, jacobian(lambda rows: meant(model(rows)), x))
    report = initdiag.diagnose(model, x, output=output, draws=64)
    assert report.architecture.ways == (f"judged: {words}",)
    assert f"judged: {words}" in {f.message for f in report.findings}


@dataclasses.dataclass(frozen=True, slots=True)
class Prediction:
    label: torch.Tensor
    scores: torch.Tensor


class Mapping(collections.OrderedDict):
    """As Hugging Face's outputs are: keys, and attributes of the same names."""

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error


RETURNS = {
    "dataclass": (lambda y: Prediction(y.argmax(1), y), None, "output.scores"),
    "dataclass, by name": (lambda y: Prediction(y.argmax(1), y), "scores", "output.scores"),
    "list": (lambda y: [None, y.sum(), y], None, "output[2]"),
    "nested": (lambda y: {"out": ({"y": y},)}, None, "output['out'][0]['y']"),
    "ordered": (lambda y: Mapping(loss=y.mean(), logits=y), None, "output['logits']"),
    "key": (lambda y: Mapping(loss=y.mean(), logits=2 * y, other=y), "other", "output['other']"),
    "categorical": (lambda y: torch.distributions.Categorical(logits=y), "logits", "output.logits"),
    "independent": (lambda y: torch.distributions.Independent(torch.distributions.Normal(y, torch.ones_like(y)), 1), None, "output.mean"),
}  # fmt: skip


class Returning(nn.Module):
    def __init__(self, returned):
        super().__init__()
        self.body, self.returned = mlp([6, 16, 3]), returned

    def forward(self, x):
        return self.returned(self.body(x))


@pytest.mark.parametrize(("returned", "output", "words"), RETURNS.values(), ids=RETURNS)
def test_outputs_of_every_kind(returned, output, words):
    arch = trace(seeded(lambda: Returning(returned)), normal(4, 6), output=output)
    assert arch.ways == (f"judged: {words}",)
    assert arch.output_size == 3
    is_plain = words not in ("output.logits", "output.mean")  # these are computed from y
    assert not is_plain or arch.gaps == ()


def test_a_wrong_output_is_told_of_the_right_ones():
    model = seeded(lambda: Returning(RETURNS["ordered"][0]))
    with pytest.raises(InvalidInput, match=r"Mapping that forward returns \(.*output\['logits'\]"):
        trace(model, normal(4, 6), output="scores")


def test_a_batch_with_targets():
    model = seeded(lambda: mlp([6, 16, 3]))
    x, y = normal(8, 6), torch.arange(8) % 3
    expected = trace(model, x)
    for batch in ((x, y), [x, y], [x], (x.numpy(), y.numpy())):
        arch = trace(model, batch)
        assert arch.gaps == ()
        assert arch.input_rms == expected.input_rms
        assert any("taken for targets" in way for way in arch.ways) == (len(batch) > 1)


def test_a_loader_is_read_without_a_trace():
    x, y = normal(20, 6), torch.arange(20)
    generator = torch.Generator().manual_seed(5)
    loader = DataLoader(TensorDataset(x, y), 4, shuffle=True, generator=generator)
    first = next(iter(loader))[0]
    generator.manual_seed(5)
    states = generator.get_state(), torch.get_rng_state()
    subject = subject_of(seeded(lambda: mlp([6, 16, 3])), loader, None, None)
    torch.testing.assert_close(subject.example, first)
    assert torch.equal(generator.get_state(), states[0])
    assert subject.said[0] == "the DataLoader's first batch"
    initdiag.diagnose(mlp([6, 16, 3]), DataLoader(TensorDataset(x, y), 4, shuffle=True), draws=8)
    torch.set_rng_state(states[1])


class Stream(IterableDataset):
    def __init__(self, is_spent_once):
        self.is_spent_once, self.given = is_spent_once, 0

    def __iter__(self):
        return self if self.is_spent_once else iter(normal(20, 6))

    def __next__(self):
        self.given += 1
        return normal(6)


def test_a_stream_is_read_only_where_it_can_be_read_again():
    assert trace(mlp([6, 3]), DataLoader(Stream(False), 4)).widths == (6, 3)
    used_up = Stream(True)
    with pytest.raises(InvalidInput, match="without using it up"):
        trace(mlp([6, 3]), DataLoader(used_up, 4))
    assert used_up.given == 0


def test_the_model_and_the_batch_are_left_alone():
    model, obs, act = seeded(Critic), normal(8, 17), normal(8, 6)
    before = {name: (p.clone(), p._version) for name, p in model.named_parameters()}
    batch = {"obs": obs, "act": act}
    initdiag.diagnose(model, batch, draws=16)
    initdiag.diagnose(seeded(Tokens), torch.arange(12).reshape(2, 6), draws=8)
    assert list(batch) == ["obs", "act"]
    assert batch["obs"] is obs
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name][0])
        assert p._version == before[name][1]
    assert not model._forward_hooks


def test_every_entry_takes_them():
    model, pair = seeded(Critic), (normal(8, 17), normal(8, 6))
    spectral = initdiag.measure_spectrum(model, pair, draws=2)
    assert spectral.input_size == 23
    assert initdiag.measure_spectrum(model, pair, input="act", draws=2).input_size == 6
    report = initdiag.check(model, pair[0], example_args=pair[1:], draws=32)
    assert report.architecture.input_size == 23
    initdiag.assert_trainable(model, pair, draws=32)
    found = initdiag.repair(model, example_input=pair)
    assert [change.name for change in found.changes][:2] == ["a.weight", "b.weight"]
    drawn = measure(Critic, pair, draws=64, method="redraw")
    assert abs(drawn.log_mean - measure(Critic, pair, draws=64).log_mean) < 2


CASTS = {
    "float": lambda x: x.float(),
    "to": lambda x: x.to(torch.float32),
    "by name": lambda x: x.to(dtype=torch.float32),
    "constants": lambda x: (
        x * torch.ones(32, dtype=torch.float32) @ torch.eye(32, dtype=torch.float32)
    ),
}


class Casting(nn.Module):
    """As policies of reinforcement learning do."""

    def __init__(self, cast):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(32, 64), nn.Linear(64, 64), nn.Linear(64, 4)
        self.cast = cast

    def forward(self, x):
        h = self.a(self.cast(x)).relu()
        return self.c(h + self.b(h).relu())


@pytest.mark.parametrize("cast", CASTS.values(), ids=CASTS)
def test_casts_to_its_own_precision_change_nothing(cast):
    found = measure(seeded(lambda: Casting(cast)), normal(8, 32), draws=32, gradients=False)
    plain = measure(seeded(lambda: Casting(lambda x: x)), normal(8, 32), draws=32, gradients=False)
    np.testing.assert_allclose(found.log_norms, plain.log_norms, atol=1e-9)

"""Which of the tensors that a forward pass is given are perturbed, and the adapter that
the module is looked at through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from initdiag.errors import InvalidInput, explain, text_of
from initdiag.tracing.adapter import Adapter, Call, Output
from initdiag.tracing.arguments import Named, Perturbed, is_integer, meant, named_tensors, said_of
from initdiag.tracing.replica import copied, replica
from initdiag.tracing.structures import mapped

__all__ = ["Adapted", "adapted", "first_that_runs", "run_first"]


@dataclass(frozen=True, slots=True)
class Adapted:
    """A module's adapter, and the example's rows as it takes them.

    Attributes
    ----------
    adapter : Adapter
        Takes the rows.
    rows : Tensor
        The perturbed tensors of the example, side by side in each row where there are
        several.
    said : tuple of str
        What is perturbed, in words, where that is not the one argument.
    target : Any
        What of the batch is taken for the targets; None if nothing is.
    """

    adapter: Adapter
    rows: Tensor
    said: tuple[str, ...]
    target: Any = None


@dataclass(frozen=True, slots=True)
class _Lookup:
    """One call of an embedding: its path, the how manieth it is, what it was given and
    what it returned.
    """

    path: str
    number: int
    index: Tensor
    found: Tensor


def adapted(
    module: nn.Module, calls: Sequence[Call], perturbed: Perturbed, output: Output
) -> Adapted:
    """Adapt the module to the first of the calls that runs.

    Raises
    ------
    InvalidInput
        If none runs, or nothing in it can be perturbed.
    """
    _require_tensors(calls[0])
    try:
        call, lookups = first_that_runs(module, calls)
    except InvalidInput:
        _refuse_integers(module, calls[0])
        raise
    named = named_tensors(module, call)
    chosen = meant(named, perturbed)
    live = [one for one in chosen if one.tensor.is_floating_point()]
    if perturbed is None:
        live = [one for one in live if "mask" not in str(one.path[-1])] or live
    if not live:
        return _at_embedding(module, call, chosen, lookups, output)
    batch = live[0].tensor.shape[:1]
    live = [one for one in live if one.tensor.shape[:1] == batch]
    if call.only is not None:
        return Adapted(Adapter(module, output=output), call.only, call.said, _target(call))
    _require_rows(live)
    adapter = Adapter(module, call, tuple(one.place for one in live), None, output, batch.numel())
    said = (*call.said, *said_of(live, named))
    return Adapted(adapter, _side_by_side(live), said, _target(call))


def _target(call: Call) -> Any:
    """Return the one target, several as they are, or None."""
    return call.rest[0] if len(call.rest) == 1 else call.rest or None


def _require_tensors(call: Call) -> None:
    if call.tensors():
        return
    given = (*call.args, *call.kwargs.values())
    raise InvalidInput(
        explain(
            expected="example_input: a batch tensor, or containers of tensors",
            got=repr(type(given[0]).__name__) if given else "nothing",
            do="Make tensors of numbers first: torch.tensor(x).",
        )
    )


def _refuse_integers(module: nn.Module, call: Call) -> None:
    """Raise of integers that the network does not take; what is advised was tried."""
    integers = [tensor for _, tensor in call.tensors()]
    if not all(map(is_integer, integers)):
        return
    args, kwargs = mapped((call.args, dict(call.kwargs)), lambda _, tensor: tensor.float())
    try:
        run_first(lambda: replica(module, copied), (Call(args, kwargs),))
        do = "Pass x.float(): the network runs on that."
    except InvalidInput:
        do = "Pass a batch that the network takes."
    raise InvalidInput(
        explain(
            expected="example_input of a floating-point dtype, which a gradient can flow to",
            got=f"{integers[0].dtype}, on which the forward pass raises",
            do=do,
        )
    )


def first_that_runs(module: nn.Module, calls: Sequence[Call]) -> tuple[Call, list[_Lookup]]:
    """Return the first call that a replica runs, with its look-ups of embeddings.

    Raises
    ------
    InvalidInput
        If none runs; the first one's failure is chained.
    """
    lookups: list[_Lookup] = []

    def watched() -> nn.Module:
        lookups.clear()
        copy = replica(module, copied)
        _watch_embeddings(copy, lookups)
        return copy

    return run_first(watched, calls), lookups


def run_first(make: Callable[[], nn.Module], calls: Sequence[Call]) -> Call:
    """Run a module on the first of the calls that it takes, and return that call.

    Raises
    ------
    InvalidInput
        If it takes none; the first one's failure is chained.
    """
    failures: list[Exception] = []
    for call in calls:
        args, kwargs = mapped((call.args, dict(call.kwargs)), lambda _, tensor: tensor.clone())
        try:
            with torch.no_grad():
                make()(*args, **kwargs)
        except Exception as error:
            failures.append(error)
        else:
            return call
    raise _unusable(calls[0], failures[0]) from failures[0]


def _unusable(call: Call, cause: Exception) -> InvalidInput:
    """Return the error for a forward pass that did not take the arguments."""
    shapes = ", ".join(f"shape {tuple(t.shape)}" for _, t in call.tensors())
    return InvalidInput(
        explain(
            expected="a forward pass that takes the input",
            got=f"{type(cause).__name__} on a batch of {shapes or 'no tensor'}: {text_of(cause)}",
            do="Pass what model(...) takes: example_input, example_args=(...), example_kwargs={...}.",
        )
    )


def _watch_embeddings(module: nn.Module, lookups: list[_Lookup]) -> None:
    """Note the calls of all embeddings, of a replica, in the order of execution."""

    def note(path: str) -> Any:
        def hook(part: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
            index = args[0] if args else kwargs.get("input")
            if isinstance(index, Tensor) and isinstance(out, Tensor):
                number = sum(one.path == path for one in lookups)
                lookups.append(_Lookup(path, number, index.detach().clone(), out.detach().clone()))

        return hook

    for path, part in module.named_modules():
        if isinstance(part, nn.Embedding | nn.EmbeddingBag):
            part.register_forward_hook(note(path), with_kwargs=True)


def _require_rows(live: Sequence[Named]) -> None:
    """Refuse a perturbed tensor without rows, or without finite numbers."""
    for one in live:
        if one.tensor.dim() < 1 or one.tensor.numel() == 0:
            raise InvalidInput(
                explain(
                    expected=f"{one.name}: a batch tensor, first dimension the rows",
                    got=f"shape {tuple(one.tensor.shape)}",
                    do="Add the batch dimension, e.g. x[None].",
                )
            )
        if not one.tensor.is_meta and not bool(torch.isfinite(one.tensor).all()):
            got = f"NaN or infinity in {one.name}"
            raise InvalidInput(explain(expected="finite inputs", got=got, do="Clean the batch."))


def _side_by_side(live: Sequence[Named]) -> Tensor:
    first = live[0].tensor
    if len(live) == 1:
        return first.detach()
    return torch.cat([one.tensor.detach().reshape(len(first), -1).to(first) for one in live], 1)


def _at_embedding(
    module: nn.Module,
    call: Call,
    chosen: Sequence[Named],
    lookups: Sequence[_Lookup],
    output: Output,
) -> Adapted:
    """Perturb what the first embedding returns for integers."""
    tokens = [one for one in chosen if is_integer(one.tensor)]
    if not tokens:
        names = ", ".join(one.name for one in chosen) or "no tensor"
        raise InvalidInput(
            explain(
                expected="an input that can be perturbed: floating numbers, or integers that are embedded",
                got=names,
                do="Pass a batch that the network takes.",
            )
        )
    entry = _entry(tokens, lookups)
    rows = entry.found.shape[0]
    adapter = Adapter(module, call, (), (entry.path, entry.number), output, rows)
    names = ", ".join(one.name for one in tokens)
    what = (
        f"perturbed: what the embedding {entry.path!r} returns; the input ({names}) holds integers"
    )
    return Adapted(adapter, entry.found, (*call.said, what), _target(call))


def _entry(tokens: Sequence[Named], lookups: Sequence[_Lookup]) -> _Lookup:
    """Return the first look-up of the tokens, else of anything in as many rows."""
    batch = tokens[0].tensor.shape[:1]
    in_rows = [one for one in lookups if one.found.dim() > 1 and one.found.shape[:1] == batch]
    of_tokens = [
        one for one in in_rows if any(_is_same(one.index, token.tensor) for token in tokens)
    ]
    if not in_rows:
        names = ", ".join(token.name for token in tokens)
        raise InvalidInput(
            explain(
                expected="example_input of a floating-point dtype, which a gradient can flow to, or "
                "tokens that an nn.Embedding looks up",
                got=f"{tokens[0].tensor.dtype} ({names})",
                do="Pass x.float(), or name the part after the embedding by module=.",
            )
        )
    return (of_tokens or in_rows)[0]


def _is_same(index: Tensor, tokens: Tensor) -> bool:
    return index.shape == tokens.shape and bool(torch.equal(index.to(tokens), tokens))

"""The adapter around a module takes one tensor and returns one tensor, whatever the
module's own forward pass takes and returns.

Everything that looks at a module looks at it through its adapter, so that arguments,
tokens and outputs of many kinds are met in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from initdiag.errors import InvalidInput, explain
from initdiag.tracing.replica import call_depth
from initdiag.tracing.structures import Attribute, Path, floating, leaves, mapped

__all__ = ["Adapter", "Call", "Output", "run_on"]

Output = int | str | Callable[[Any], Any] | None
"""Which part of what forward returns is judged: an index, a key or an attribute, a
function of it, or the first floating tensor in it."""


@dataclass(frozen=True, slots=True)
class Call:
    """How a forward pass is called.

    Attributes
    ----------
    args, kwargs : tuple, dict
        As it takes them.
    said : tuple of str
        How an ambiguous batch was read, in words.
    rest : tuple
        What of the batch is taken for targets.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    said: tuple[str, ...] = ()
    rest: tuple[Any, ...] = ()

    def tensors(self) -> list[tuple[Path, Tensor]]:
        """Return the tensors among the arguments, each with its path."""
        return list(leaves((self.args, self.kwargs)))

    @property
    def only(self) -> Tensor | None:
        """The one tensor that is the one argument; None for another call."""
        first = self.args[0] if len(self.args) == 1 and not self.kwargs else None
        return first if isinstance(first, Tensor) else None


class _Doubled(TorchFunctionMode):
    """Takes single precision for double: a replica in double precision of a module that
    casts to its own precision goes on in double precision.

    What is traced or measured within its forward pass keeps its precision.
    """

    def __init__(self) -> None:
        super().__init__()
        self._depth = call_depth()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if call_depth() != self._depth:
            return func(*args, **(kwargs or {}))
        if func is Tensor.float:
            func = Tensor.double
        args = tuple(torch.float64 if value is torch.float32 else value for value in args)
        kwargs = {
            name: torch.float64 if value is torch.float32 else value
            for name, value in (kwargs or {}).items()
        }
        return func(*args, **kwargs)


@dataclass(frozen=True, slots=True)
class _Hole:
    """Where in the arguments a tensor stands."""

    index: int


class Adapter(nn.Module):
    """Runs a module on one tensor of rows, and returns one tensor.

    Names of parameters and parts are those of the module itself.

    Parameters
    ----------
    inner : nn.Module
        The module.
    call : Call or None
        The other arguments, dealt out to the rows as they belong together; None where
        the rows themselves are the one argument.
    live : tuple of int
        Which tensors of the call the rows stand for. Several lie side by side in a row.
    entry : tuple of str and int, or None
        The embedding, and the number of its call, whose result the rows stand for.
    output : Output
        What is judged.
    """

    def __init__(
        self,
        inner: nn.Module,
        call: Call | None = None,
        live: tuple[int, ...] = (),
        entry: tuple[str, int] | None = None,
        output: Output = None,
        rows: int = 1,
    ) -> None:
        super().__init__()
        self.inner = inner
        self.training = inner.training
        self._live, self._entry, self._output, self._rows = live, entry, output, rows
        self._tensors = [] if call is None else [tensor for _, tensor in call.tensors()]
        self._skeleton: Any = None if call is None else _hollow(call)
        self._shapes = [tuple(self._tensors[index].shape[1:]) for index in live]
        self._is_single = _precision(inner) == torch.float32
        self.taken: str | None = None
        """Which part of the output the last pass returned, in words; None for all."""

    @property
    def entered(self) -> str | None:
        """Path of the embedding whose result the rows stand for."""
        return None if self._entry is None else self._entry[0]

    def around(self, module: nn.Module) -> Adapter:
        """Return the same adapter around another module of the kind."""
        other = Adapter.__new__(Adapter)
        own = {"_modules": {"inner": module}, "training": module.training}
        other.__dict__.update(self.__dict__ | own)
        return other

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """Yield what the module itself yields: the adapter adds none to their names."""
        yield from self.inner.named_modules(memo, prefix, remove_duplicate)

    def get_submodule(self, target: str) -> nn.Module:
        """Return a part of the module."""
        return self.inner.get_submodule(target)

    def apply(self, fn: Callable[[nn.Module], Any]) -> Adapter:
        """Apply ``fn`` to the module and its parts alone."""
        self.inner.apply(fn)
        return self

    def forward(self, x: Tensor, index: Tensor | None = None) -> Any:
        """Return the judged part of what the module returns for these rows.

        Parameters
        ----------
        x : Tensor
            The rows.
        index : Tensor, optional
            Which rows of the example they are, for the arguments that go with them; by
            default the first ones.
        """
        is_doubled = self._is_single and _precision(self.inner) == torch.float64
        args, kwargs = self._arguments(x, index)
        with _Doubled() if is_doubled else nullcontext(), self._entered(x):
            out = self.inner(*args, **kwargs)
        return self.judged(out, len(x))

    def own_call(self, x: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the example's own arguments, afresh: what training runs the module on.

        ``x`` is the one argument where the rows are that; else it does not count.
        """
        if self._skeleton is None:
            return (x.detach().clone(),), {}
        return self._filled([tensor.detach().clone() for tensor in self._tensors])

    def _arguments(self, x: Tensor, index: Tensor | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What the module is called with for these rows."""
        return ((x,), {}) if self._skeleton is None else self._filled(self._dealt(x, index))

    def _filled(self, tensors: list[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args, kwargs = mapped(self._skeleton, lambda _, hole: tensors[hole.index], (_Hole,))
        return args, kwargs

    def _dealt(self, x: Tensor, index: Tensor | None) -> list[Tensor]:
        """Return the tensors of the call for these rows."""
        count = len(x)
        dealt = list(self._tensors)
        if index is not None or count != self._rows:
            chosen = torch.arange(count) if index is None else index
            chosen = chosen % self._rows
            dealt = [
                t[chosen.to(t.device)] if t.shape[:1] == (self._rows,) else t for t in self._tensors
            ]
        if len(self._live) == 1:
            dealt[self._live[0]] = x
            return dealt
        start = 0
        for place, shape in zip(self._live, self._shapes, strict=True):
            size = torch.Size(shape).numel()
            dealt[place] = x[:, start : start + size].reshape(count, *shape)
            start += size
        return dealt

    @contextmanager
    def _entered(self, x: Tensor) -> Iterator[None]:
        """Put the rows in the place of what an embedding returns."""
        if self._entry is None:
            yield
            return
        path, wanted = self._entry
        calls = iter(range(wanted + 1))

        def replaced(module: nn.Module, args: Any, out: Tensor) -> Tensor:
            return x if next(calls, None) == wanted else out

        handle = self.inner.get_submodule(path).register_forward_hook(replaced)
        try:
            yield
        finally:
            handle.remove()

    def judged(self, out: Any, rows: int) -> Any:
        """Return the judged part of an output, or the output itself if no tensor is in
        it.
        """
        if isinstance(out, Tensor) and self._output is None:
            self.taken = None
            return out
        part, words = _asked_for(out, self._output)
        found = [(words + _worded(path), tensor) for path, tensor in floating(part)]
        of_rows = [pair for pair in found if pair[1].shape[:1] == (rows,)]
        if not found and self._output is None:
            return out
        if not found:
            raise InvalidInput(
                explain(
                    expected=f"output: what leads to a floating tensor of the {_described(out)}",
                    got=f"{type(part).__name__} at output={self._output!r}",
                    do="Name another, or leave it out: the first floating tensor is taken.",
                )
            )
        self.taken, tensor = (of_rows or found)[0]
        return tensor


def _precision(module: nn.Module) -> torch.dtype | None:
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), None)


def run_on(module: nn.Module, x: Tensor, index: Tensor) -> Any:
    """Run a module on rows; for an adapter, ``index`` says which of the example's."""
    return module(x, index) if isinstance(module, Adapter) else module(x)


def _hollow(call: Call) -> Any:
    """Return the arguments with a hole for every tensor."""
    numbers = iter(range(len(call.tensors())))
    return mapped((call.args, dict(call.kwargs)), lambda *_: _Hole(next(numbers)))


def _asked_for(out: Any, output: Output) -> tuple[Any, str]:
    """Return the part of an output that is asked for, and how it is written."""
    if output is None:
        return out, "output"
    if callable(output):
        name = getattr(output, "__name__", type(output).__name__)
        return output(out), "output(...)" if name == "<lambda>" else f"{name}(output)"
    try:
        return out[output], f"output[{output!r}]"
    except (TypeError, LookupError, NotImplementedError) as error:
        if isinstance(output, str) and hasattr(out, output):
            return getattr(out, output), f"output.{output}"
        raise InvalidInput(
            explain(
                expected=f"output: an index, a key or a function of the {_described(out)}",
                got=repr(output),
                do="Name one of these.",
            )
        ) from error


def _described(out: Any) -> str:
    """Return what a forward pass returned, with the paths of its floating tensors."""
    if isinstance(out, Tensor):
        return f"tensor of shape {tuple(out.shape)} that forward returns"
    paths = ", ".join(f"output{_worded(path)}" for path, _ in floating(out))
    return f"{type(out).__name__} that forward returns ({paths or 'without a floating tensor'})"


def _worded(path: Path) -> str:
    """Return a path as it is written in Python: ``[0].mean``, ``['logits']``."""
    return "".join(f".{key}" if isinstance(key, Attribute) else f"[{key!r}]" for key in path)

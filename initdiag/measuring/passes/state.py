"""The state of a replica: every pass starts from the one that the module came with.

A forward pass may write to buffers (batch statistics), and a few write to more: to
their own weights, to counters, to lists of what they have seen. What one pass leaves
behind is not what the next one is to be measured on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from torch import Tensor, nn

from initdiag.tracing.structures import are_equal

__all__ = ["Changes", "Given", "changed_by"]

Changes = Literal["nothing", "attributes", "weights"]
"""What a pass changes of a module, the most that it does."""

_CONTAINERS = (dict, list, set, deque)


class Given:
    """The tensors that one pass runs on, in the place of a module's own.

    Parameters
    ----------
    module : nn.Module
        The replica.
    values : mapping
        Name -> what a parameter or a buffer is; others are the module's own.
    is_changed : bool
        Whether a pass changes parameters or attributes: then it runs on copies, as it
        always does of buffers, and attributes are put back as well.
    """

    def __init__(
        self, module: nn.Module, values: Mapping[str, Tensor], *, is_changed: bool
    ) -> None:
        self._module, self._has_attributes = module, is_changed
        self._pairs: list[tuple[Tensor, Tensor]] = []
        for name, p in module.named_parameters():
            value = values.get(name, p).detach()
            self._pairs.append((p, value.clone() if is_changed else value))
        for name, buffer in module.named_buffers():
            self._pairs.append((buffer, values.get(name, buffer).detach().clone()))

    @contextmanager
    def to_a_pass(self) -> Iterator[None]:
        """Give them to the module; put back what it had."""
        attributes = _Attributes(self._module) if self._has_attributes else None
        with self.to_a_backward_pass():
            try:
                yield
            finally:
                if attributes is not None:
                    attributes.put_back()

    @contextmanager
    def to_a_backward_pass(self) -> Iterator[None]:
        """Give them to the graph of a pass, as the pass left them.

        The graph knows a parameter by the object, whose values are not the pass' own
        any more.
        """
        own = [(tensor, tensor.data) for tensor, _ in self._pairs]
        for tensor, value in self._pairs:
            tensor.data = value
        try:
            yield
        finally:
            self._pairs = [(tensor, tensor.data) for tensor, _ in self._pairs]
            for tensor, data in own:
                tensor.data = data


def changed_by(module: nn.Module, run: Callable[[], Any]) -> Changes:
    """Return what ``run`` changes of the module, which is put back."""
    own = list(module.parameters())
    with Given(module, {}, is_changed=True).to_a_pass():
        attributes = _Attributes(module)
        run()
        has_changed = attributes.have_changed()
        now = [p.data for p in own]
    if all(are_equal(p.detach(), value) for p, value in zip(own, now, strict=True)):
        return "attributes" if has_changed else "nothing"
    return "weights"


class _Attributes:
    """The attributes of a module's parts, and what is in those that are containers."""

    def __init__(self, module: nn.Module) -> None:
        parts = [part.__dict__ for part in module.modules()]
        held = [value for part in parts for value in part.values()]
        containers = [value for value in held if isinstance(value, _CONTAINERS)]
        tensors = [value for value in held if isinstance(value, Tensor)]
        self._contents = [(one, one.copy()) for one in (*parts, *containers)]
        self._tensors = [(tensor, tensor.detach().clone()) for tensor in tensors]

    def have_changed(self) -> bool:
        """Return whether anything was put in, taken out, replaced or written to."""
        return not (
            all(_has_same(one, before) for one, before in self._contents)
            and all(are_equal(tensor.detach(), before) for tensor, before in self._tensors)
        )

    def put_back(self) -> None:
        """Give every part what it had."""
        for one, contents in self._contents:
            one.clear()
            one.extend(contents) if isinstance(one, list | deque) else one.update(contents)
        for tensor, values in self._tensors:
            tensor.data = values


def _has_same(container: Any, before: Any) -> bool:
    """Return whether a container has the same objects in it as before."""
    if isinstance(container, dict):
        container, before = list(container.items()), list(before.items())
        return len(container) == len(before) and all(
            key is other and value is was  # tensors, as keys, have no one truth
            for (key, value), (other, was) in zip(container, before, strict=True)
        )
    return len(container) == len(before) and all(
        value is was for value, was in zip(container, before, strict=True)
    )

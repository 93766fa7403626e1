"""`trace`: one watched forward pass over the user's module, and the `Architecture` that
two witnesses agree on.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from initdiag.errors import UnsupportedArchitecture
from initdiag.network.architecture import (
    Activation,
    Architecture,
    BiasLaw,
    Gap,
    InputMap,
    Layer,
)
from initdiag.tracing import sharing, weights
from initdiag.tracing.adapter import Output
from initdiag.tracing.explained import BiasedLayer
from initdiag.tracing.flow import Flow
from initdiag.tracing.forward_pass import Sighting, watch
from initdiag.tracing.guard import untouched
from initdiag.tracing.inputs import (
    Subject,
    inputs_to_try,
    is_meta,
    require_weights,
    subject_of,
)
from initdiag.tracing.proof import disproof
from initdiag.tracing.provenance import Origin
from initdiag.tracing.replica import own_modes

__all__ = ["require_layers", "trace", "trace_subject", "trace_with_biases"]

_NO_LAYER = "reaches no linear layer between input and output"


def trace(
    model: nn.Module | Callable[[], nn.Module],
    example_input: Any = None,
    *,
    example_args: Sequence[Any] = (),
    example_kwargs: Mapping[str, Any] | None = None,
    input_size: Sequence[int] | Sequence[Sequence[int]] | None = None,
    input: int | str | None = None,
    output: Output = None,
    module: str | None = None,
) -> Architecture:
    """Read a module's layers, widths, gates and weights from one forward pass over a
    replica of it.

    Parameters
    ----------
    model : nn.Module or factory
        Left as it came, bit for bit. Judged in the modes (train or eval) that it is in.
    example_input : optional
        A batch, first dimension the rows: a tensor, a NumPy array, a tuple of
        arguments, a dict, a batch ``(x, y)``, or a ``DataLoader`` (its first batch).
        The root mean square of what is perturbed is the architecture's ``input_rms``,
        which matters behind smooth activations and biases.
    example_args, example_kwargs : sequence, mapping
        Further arguments of forward, after the example and by name.
    input_size : sequence of int, or of shapes, optional
        The shape of such a batch (torchinfo's convention), or one of each argument.
        Without either, the first linear layer's width is tried. Lazy modules need one
        of them.
    input : int or str, optional
        Position or name of the argument that is perturbed. By default all floating ones
        are, together (a mask is not); of integers, what the first embedding returns for
        them is.
    output : int, str or callable, optional
        What is judged of that which forward returns: an index, a key or an attribute,
        or a function of it. By default the first floating tensor in it, which may be
        the mean of a distribution.
    module : str, optional
        Path of a part, e.g. ``"head"``: it alone is traced, on what the whole model's
        forward pass hands it.

    Returns
    -------
    Architecture
        Without gaps only if the record of calls and the autograd graph agree on a plain
        chain.

    Raises
    ------
    InvalidInput
        Not a module, no weights, NaN weights, a wrong input, a forward pass that raises
        (its cause is chained).
    UnsupportedArchitecture
        If no linear layer is reached at all.
    """
    with untouched(), own_modes():
        subject = subject_of(
            model, example_input, input_size, module, args=example_args, kwargs=example_kwargs,
            perturbed=input, output=output,
        )  # fmt: skip
        return require_layers(trace_subject(subject))


def require_layers(architecture: Architecture) -> Architecture:
    """Return ``architecture``, if it has any linear layer.

    Raises
    ------
    UnsupportedArchitecture
        If not.
    """
    if not architecture.layers:
        raise UnsupportedArchitecture(
            f"{architecture.source} {_NO_LAYER}, which is what the theory is about. Measure a function that builds it with "
            "method='redraw', or look at the fully connected part of it with module=."
        )
    return architecture


def trace_subject(subject: Subject) -> Architecture:
    """Trace what `subject_of` made of a user's arguments; the caller preserves random
    state and modes.

    Without any linear layer the architecture is one gap.
    """
    return trace_with_biases(subject)[0]


def trace_with_biases(subject: Subject) -> tuple[Architecture, tuple[str, ...]]:
    """Trace as `trace_subject` does, and name the biases that the linear layers add.

    Each bias is named once, in the order of execution.
    """
    require_weights(subject.module)
    sighting = watch(subject.module, inputs_to_try(subject.module, subject.example, subject.size))
    flow = Flow(sighting.calls, sighting.last, tuple(sighting.x.shape))
    biases = dict.fromkeys(name for call in flow.linear_calls for name in flow.biases_of(call))
    rms = _root_mean_square(subject.example)
    found = _architecture(subject.module, sighting, subject.name, rms)
    taken = () if sighting.taken is None else (f"judged: {sighting.taken}",)
    return dataclasses.replace(found, ways=(*subject.said, *taken)), tuple(biases)


def _root_mean_square(example: Any) -> float:
    """Return that of all entries of an example (float64), which enter a chain's first
    layer as they are; 1 where there is none, or none to scale by.
    """
    if not isinstance(example, Tensor) or example.is_meta or not example.is_floating_point():
        return 1.0
    norm = float(torch.linalg.vector_norm(example.detach().double()))
    rms = norm / math.sqrt(max(1, example.numel()))
    return rms if 0 < rms < math.inf else 1.0


def _architecture(
    module: nn.Module, sighting: Sighting, source: str, input_rms: float
) -> Architecture:
    learnt = frozenset(
        path for path, part in module.named_modules() if any(True for _ in part.parameters(False))
    )
    flow = Flow(sighting.calls, sighting.last, tuple(sighting.x.shape), learnt)
    no_layer = () if flow.linear_calls else (Gap("forward", "no linear layer", f"it {_NO_LAYER}"),)
    names = [str(call.weight) for call in flow.linear_calls]
    kin = sharing.kin(names, sighting.computed, dict(module.named_parameters()))
    of_flow = (
        _output_gap(gap, sighting.steps) if gap.kind == "output" else gap for gap in flow.gaps()
    )
    biases = [name for call in flow.linear_calls for name in flow.biases_of(call)]
    shared = sharing.kin([*names, *biases], sighting.computed, dict(module.named_parameters()))
    own = (*of_flow, *sharing.shared_gaps(shared))
    gaps = no_layer or own
    if not gaps and is_meta(module):  # it cannot run
        gaps = tuple(_disagreement(flow.steps(), sighting.steps))
    layers = _layers(module, flow, sighting.computed, kin)
    behind_map = [gap for gap in gaps if InputMap.among((gap,)) is None]
    if not behind_map and not is_meta(module):
        difference = disproof(module, flow, layers, sighting.products, sighting.x)
        gaps = gaps if difference is None else (*gaps, difference)
    used = {call.weight for call in flow.linear_calls}.union(
        *(o.sources for o in sighting.computed.values())
    )
    return Architecture(
        layers=layers,
        input_size=math.prod(sighting.x.shape[1:]),
        output_size=max(1, math.prod(sighting.output_shape[1:])),
        gaps=gaps,
        unused=tuple(
            n for n, p in module.named_parameters() if p.dim() == 2 and n not in used and not gaps
        ),
        source=source,
        training=module.training,
        input_rms=input_rms,
        shortest=flow.shortest() if gaps else None,
    )


def _output_gap(gap: Gap, steps: tuple[str, ...] | str) -> Gap:
    """Return the gap with what is known of the output in words."""
    return Gap(gap.path, gap.kind, steps) if isinstance(steps, str) else gap


def _disagreement(recorded: tuple[str, ...], walked: tuple[str, ...] | str) -> Iterator[Gap]:
    """Yield a gap unless the record of calls and the autograd graph tell the same
    chain.
    """
    if isinstance(walked, str):
        yield Gap("output", "dataflow", walked)
    elif recorded != walked:
        yield Gap(
            "output", "dataflow", f"the calls show {recorded}, the autograd graph shows {walked}"
        )


def _layers(
    module: nn.Module, flow: Flow, computed: Mapping[str, Origin], kin: Mapping[str, Sequence[str]]
) -> tuple[Layer, ...]:
    values = {
        **dict(module.named_parameters()),
        **{name: origin.root.detach() for name, origin in computed.items()},
    }
    matrices = []
    for call in flow.linear_calls:
        assert call.weight is not None
        weight = values[call.weight]
        matrices.append((call.weight, weight.T if call.is_transposed else weight))
    activations = [
        flow.activation_after(call) or Activation("linear") for call in flow.linear_calls
    ]
    slopes = [a.negative_slope for a in activations if a.name == "leaky_relu"]
    laws = (
        weights.assumed_laws(matrices)
        if is_meta(module)
        else weights.weight_laws(
            matrices, kin, slopes, _biased(flow, matrices, values, activations)
        )
    )
    biases = weights.bias_laws(
        {
            name: (values[name], matrix.shape[1])
            for call, (_, matrix) in zip(flow.linear_calls, matrices, strict=True)
            for name in flow.biases_of(call)
        }
    )
    return tuple(
        Layer(
            name=name,
            fan_in=matrix.shape[1],
            fan_out=matrix.shape[0],
            weight=law,
            activation=activation,
            bias=_bias([(biases[n], values[n]) for n in flow.biases_of(call)], matrix),
        )
        for call, (name, matrix), law, activation in zip(
            flow.linear_calls, matrices, laws, activations, strict=True
        )
    )


def _biased(
    flow: Flow,
    matrices: Sequence[tuple[str, Tensor]],
    values: Mapping[str, Tensor],
    activations: Sequence[Activation],
) -> list[BiasedLayer]:
    """Return the biases of one number a unit, each once, with their matrices."""
    asks_for_signs = all(a.name in ("linear", "relu", "leaky_relu", "rrelu") for a in activations)
    firsts: dict[str, BiasedLayer] = {}
    for i, (call, (_, matrix)) in enumerate(zip(flow.linear_calls, matrices, strict=True)):
        for name in flow.biases_of(call):
            if values[name].numel() == len(matrix):
                firsts.setdefault(name, BiasedLayer(i, matrix, values[name], asks_for_signs))
    return list(firsts.values())


def _bias(added: Sequence[tuple[BiasLaw, Tensor]], matrix: Tensor) -> BiasLaw | None:
    """Return the law of what is added. For several biases, or one number for several
    units, symmetry is not claimed.
    """
    if not added:
        return None
    law, bias = added[0]
    is_plain = len(added) == 1 and (law.variance == 0 or bias.numel() == matrix.shape[0])
    return law if is_plain else BiasLaw(math.fsum(x.variance for x, _ in added), symmetric=False)

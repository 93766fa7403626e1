"""`measure_spectrum`: singular values of the true Jacobian of the user's own module,
over an ensemble of initialisations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from initdiag._core.choices import WEIGHT_ENSEMBLES, WeightEnsemble
from initdiag._core.validation import choice, positive_integer, seed_integer
from initdiag.measuring.ensembles.networks import Redraws, Signs, refuse_mixed_rows
from initdiag.measuring.ensembles.redraw import Loaded
from initdiag.measuring.singular import all_values, fits_dense, quadratures
from initdiag.measuring.spectrum_record import SpectralMeasurement
from initdiag.measuring.survey import surveyed
from initdiag.measuring.task import checked_init, prepared
from initdiag.network.architecture import Architecture
from initdiag.tracing.adapter import Output
from initdiag.tracing.guard import untouched
from initdiag.tracing.inputs import subject_of
from initdiag.tracing.replica import own_modes
from initdiag.tracing.trace import trace_subject

__all__ = ["measure_spectrum"]


def measure_spectrum(
    model: nn.Module | Callable[[], nn.Module],
    example_input: Any = None,
    *,
    example_args: Sequence[Any] = (),
    example_kwargs: Mapping[str, Any] | None = None,
    input_size: Sequence[int] | Sequence[Sequence[int]] | None = None,
    input: int | str | None = None,
    output: Output = None,
    draws: int = 16,
    method: WeightEnsemble = "signs",
    init: Callable[[nn.Module], Any] | None = None,
    seed: int = 0,
    dense: bool | None = None,
    steps: int = 64,
    architecture: Architecture | None = None,
    module: str | None = None,
) -> SpectralMeasurement:
    """Measure the squared singular values of the input-output Jacobian of the user's
    own module, in float64.

    Parameters
    ----------
    model : nn.Module or factory
        Left as it came, bit for bit.
    example_input, example_args, example_kwargs, input_size, input, output
        See `trace`. Rows are dealt out over the draws in turn: draw ``i`` is the
        Jacobian at one row. Random normal rows where none are given.
    draws : int
        How many networks.
    method : str
        ``"signs"``: random signs around the real weights; ``"redraw"``: parameters
        drawn afresh. As in `measure`.
    init : callable, optional
        An initialiser that ``model.apply`` takes, for redraws.
    seed : int
        Draw ``i`` depends on nothing but the seed and ``i``.
    dense : bool, optional
        Whether Jacobians are formed and decomposed. If not given: where their smaller
        side is at most 1,024 and they take at most 256 MiB. Otherwise nothing but
        products with them is taken: extremes by ARPACK, the density by stochastic
        Lanczos quadrature.
    steps : int
        Steps of Lanczos' iteration, where used: the density's resolution is ``(pi/(4
        steps))^2`` of the largest eigenvalue.
    architecture : Architecture, optional
        What `trace` returned for this model, to spare a second look.
    module : str, optional
        Path of a part that is measured alone, as in `trace`.

    Returns
    -------
    SpectralMeasurement
        Compare with `predict_spectrum`.

    Raises
    ------
    InvalidInput
        As `trace`, for an unknown method, and for an ``init`` that raises.
    UnsupportedArchitecture
        If the ensemble does not exist for this module, or its rows are mixed; the
        message says why and what to do.
    """
    draws, steps, seed = (
        positive_integer(draws, "draws"),
        positive_integer(steps, "steps"),
        seed_integer(seed),
    )
    init = checked_init(init)
    choice(method, "method", WEIGHT_ENSEMBLES, "Choose one: singular values need weights.")
    with untouched(), own_modes():
        subject = subject_of(
            model, example_input, input_size, module, args=example_args, kwargs=example_kwargs,
            perturbed=input, output=output,
        )  # fmt: skip
        arch = architecture or trace_subject(subject)
        task = prepared(
            subject.module, arch, subject.example, subject.size, seed, None, torch.float64
        )
        task = surveyed(task)
        networks = (
            Signs(task) if method == "signs" else Redraws.of_task(task, subject.factory, init)
        )
        refuse_mixed_rows(task, networks.of(range(4)) if isinstance(networks, Signs) else Loaded())
        is_dense = dense if dense is not None else fits_dense(*networks.sizes)
        found = (
            all_values(task, networks, draws)
            if is_dense
            else quadratures(task, networks, draws, steps)
        )
        n_0, n_1 = networks.sizes
        notes = networks.notes()
    return SpectralMeasurement(method, draws, seed, n_0, n_1, *found, notes=notes)

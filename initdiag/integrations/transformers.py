"""Hugging Face: a callback of ``transformers.Trainer`` that diagnoses the model before
it is trained.
"""

from __future__ import annotations

from typing import Any

from initdiag._core.choices import FailOn
from initdiag.diagnosing.diagnose import diagnose, fails
from initdiag.diagnosing.report import Report
from initdiag.errors import AtRisk, InitdiagError

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise InitdiagError(
        "expected transformers, got none. Install it: pip install 'initdiag[transformers]'"
    ) from error

__all__ = ["Initdiag"]


class Initdiag(TrainerCallback):
    """Diagnose the model when the trainer is made, and raise `AtRisk` when training
    begins, if it fails.

    On the world's process zero; the model is whole then, sharded later. Training that
    goes on from a checkpoint is let pass.

    Parameters
    ----------
    fail_on : str, optional
        ``"risk"``, ``"no-verdict"`` (which includes risk), or None: report only.
    **diagnose_options
        See `initdiag.diagnose`; ``module="classifier"`` with an ``example_input`` for
        the part of a larger model that is a chain.

    Attributes
    ----------
    report : Report or None
        On the world's process zero.
    """

    def __init__(self, fail_on: FailOn | None = "risk", **diagnose_options: Any) -> None:
        self.fail_on, self.options = fail_on, diagnose_options
        self.report: Report | None = None

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Diagnose."""
        if state.is_world_process_zero:
            self.report = diagnose(kwargs["model"], **self.options)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Raise if it fails."""
        if self.report is not None and state.global_step == 0 and fails(self.report, self.fail_on):
            raise AtRisk(f"\n{self.report}", self.report)

"""Lightning: a callback that diagnoses the module before it is trained."""

from __future__ import annotations

from typing import Any

from initdiag._core.choices import FailOn
from initdiag.diagnosing.diagnose import diagnose, fails
from initdiag.diagnosing.report import Report
from initdiag.errors import AtRisk, InitdiagError

try:
    import pytorch_lightning as pl
except ImportError as error:
    raise InitdiagError(
        "expected pytorch-lightning, got none. Install it: pip install 'initdiag[lightning]'"
    ) from error

__all__ = ["Initdiag"]


class Initdiag(pl.Callback):
    """Diagnose before training; raise `AtRisk` on every rank if the report fails.

    Diagnosed on rank zero in ``setup``, before a strategy shards the module; judged
    before the first step, unless training goes on from a checkpoint.

    Parameters
    ----------
    fail_on : str, optional
        ``"risk"``, ``"no-verdict"`` (which includes risk), or None: report only.
    **diagnose_options
        See `initdiag.diagnose`. Without ``example_input`` and ``input_size`` the
        module's ``example_input_array`` is used, if it has one.

    Attributes
    ----------
    report : Report or None
        On rank zero; its numbers go to the trainer's loggers.
    """

    def __init__(self, fail_on: FailOn | None = "risk", **diagnose_options: Any) -> None:
        self.fail_on, self.options = fail_on, diagnose_options
        self.report: Report | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Diagnose, while the module is whole."""
        if stage == "fit" and trainer.is_global_zero:
            self.report = diagnose(pl_module, **{**self._example(pl_module), **self.options})

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the numbers, and raise if the report fails. Nothing is checked where
        training goes on from a checkpoint, which is known only now.
        """
        if trainer.ckpt_path is not None:
            return
        if self.report is not None:
            for logger in trainer.loggers:
                logger.log_metrics(self.report.to_metrics(), step=0)
        if trainer.strategy.broadcast(self.report is not None and fails(self.report, self.fail_on)):
            raise AtRisk(
                f"\n{self.report}" if self.report else "at risk: see rank zero's report",
                self.report,
            )

    def _example(self, module: pl.LightningModule) -> dict[str, Any]:
        is_given = self.options.get("input_size") is not None or module.example_input_array is None
        return {} if is_given else {"example_input": module.example_input_array}

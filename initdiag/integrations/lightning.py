"""Lightning: a callback that diagnoses the module before it is trained."""

from __future__ import annotations

from typing import Any

from initdiag.diagnosis import diagnose, fails
from initdiag.errors import AtRisk, InitdiagError
from initdiag.report import Report

try:
    import pytorch_lightning as pl
except ImportError as error:
    raise InitdiagError("expected pytorch-lightning, got none. Install it: pip install 'initdiag[lightning]'") from error

__all__ = ["Initdiag"]


class Initdiag(pl.Callback):
    """Diagnose before training; raise `AtRisk` on every rank if it fails. Also taken by the trainer of the package ``lightning``.

    Run in ``setup``, before a strategy shards the module, on rank zero; not where training goes on from a checkpoint.

    Parameters
    ----------
    fail_on : str, optional
        ``"risk"``, ``"no-verdict"`` (which includes risk), or None: report only.
    **diagnose_options
        As in `initdiag.diagnose`. Without ``example_input`` and ``input_size`` the module's ``example_input_array`` is used, if it has one.

    Attributes
    ----------
    report : Report or None
        Of rank zero, once training has begun; its numbers go to the trainer's loggers.
    """

    def __init__(self, fail_on: str | None = "risk", **diagnose_options: Any) -> None:
        self.fail_on, self.options = fail_on, diagnose_options
        self.report: Report | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Diagnose, where training starts from the initialisation."""
        if stage != "fit" or trainer.ckpt_path is not None:
            return
        if trainer.is_global_zero:
            self.report = diagnose(pl_module, **{**self._example(pl_module), **self.options})
            for logger in trainer.loggers:
                logger.log_metrics(self.report.to_metrics(), step=0)
        failed = self.report is not None and fails(self.report, self.fail_on)
        if trainer.strategy.broadcast(failed):
            raise AtRisk(f"\n{self.report}" if self.report else "at risk: see rank zero", self.report)

    def _example(self, module: pl.LightningModule) -> dict[str, Any]:
        is_given = self.options.get("input_size") is not None or module.example_input_array is None
        return {} if is_given else {"example_input": module.example_input_array}

"""Experiment trackers: a report's numbers, page and figure, in the logger that is used
already.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
from collections.abc import Callable
from typing import Any

from initdiag.diagnosing.report import Report
from initdiag.errors import InvalidInput, explain

__all__ = ["log_report"]

_NAME = "initdiag/report"
"""What page, text and figure are called, beside the numbers ``initdiag/...``."""


def log_report(report: Report, logger: Any, step: int = 0) -> None:
    """Write a report to a logger, which is known by its methods.

    Raises
    ------
    InvalidInput
        For a logger of another kind.
    """
    for is_kind, write in _WRITERS:
        if is_kind(logger):
            write(report, logger, step)
            return
    raise InvalidInput(
        explain(
            expected="a SummaryWriter, mlflow, a wandb run, an Aim run or a Lightning logger",
            got=type(logger).__name__,
            do="Write the numbers yourself: report.to_metrics().",
        )
    )


def _has(*names: str) -> Callable[[Any], bool]:
    return lambda logger: all(callable(getattr(logger, name, None)) for name in names)


def _figure(report: Report) -> Any:
    """Return the report's figure; None without matplotlib, which is an extra."""
    return report.figure() if importlib.util.find_spec("matplotlib") else None


def _to_lightning(report: Report, logger: Any, step: int) -> None:
    """Write the numbers to the logger, the rest to the tracker that it stands for."""
    logger.log_metrics(report.to_metrics(), step=step)
    tracker: Any = getattr(logger, "experiment", None)
    run = getattr(logger, "run_id", None)
    if _has("log_text", "log_metric")(tracker) and run is not None:
        tracker.log_text(run, report.to_html(), f"{_NAME}.html")
        tracker.log_text(run, report.to_markdown(), f"{_NAME}.md")
    elif _has("add_scalar", "add_text")(tracker):
        _text_and_figure(report, tracker, step)
    elif _is_wandb(tracker):
        tracker.log(_media(report))


def _to_tensorboard(report: Report, logger: Any, step: int) -> None:
    for name, value in report.to_metrics().items():
        logger.add_scalar(name, value, step)
    _text_and_figure(report, logger, step)


def _text_and_figure(report: Report, logger: Any, step: int) -> None:
    logger.add_text(_NAME, report.to_markdown(), step)
    figure = _figure(report)
    if figure is not None:
        logger.add_figure(f"{_NAME}_figure", figure, step)


def _to_mlflow(report: Report, logger: Any, step: int) -> None:
    logger.log_metrics(report.to_metrics(), step=step)
    logger.log_text(report.to_html(), f"{_NAME}.html")
    logger.log_text(report.to_markdown(), f"{_NAME}.md")
    logger.log_text(report.to_json(indent=2), f"{_NAME}.json")
    figure = _figure(report)
    if figure is not None:
        logger.log_figure(figure, f"{_NAME}.png")


def _is_wandb(logger: Any) -> bool:
    return type(logger).__module__.partition(".")[0] == "wandb" and _has("log")(logger)


def _media(report: Report) -> dict[str, Any]:
    wandb = importlib.import_module("wandb")
    found = {_NAME: wandb.Html(report.to_html())}
    figure = _figure(report)
    if figure is not None:  # as a picture: wandb takes figures of pyplot alone
        file = io.BytesIO()
        figure.savefig(file, format="png")
        found[f"{_NAME}_figure"] = wandb.Image(importlib.import_module("PIL.Image").open(file))
    return found


def _to_wandb(report: Report, logger: Any, step: int) -> None:
    logger.log({**report.to_metrics(), **_media(report)}, step=step)


def _to_aim(report: Report, logger: Any, step: int) -> None:
    for name, value in report.to_metrics().items():
        logger.track(value, name=name, step=step)


_WRITERS: tuple[tuple[Callable[[Any], bool], Callable[[Report, Any, int], None]], ...] = (
    (_has("add_scalar", "add_text"), _to_tensorboard),
    (_is_wandb, _to_wandb),
    (_has("log_metrics", "log_text", "log_figure"), _to_mlflow),
    (_has("log_metrics", "log_hyperparams"), _to_lightning),
    (_has("track"), _to_aim),
)
"""How each kind of logger is known, and written to."""

"""``[tool.initdiag]`` of ``pyproject.toml``: which models a project checks, and how. Loads no torch.

.. code-block:: toml

    [tool.initdiag]
    models = [
        "model.py:build",
        { target = "model.py:Big", input_size = [2, 784], module = "head", thresholds = { max_risk = 0.2 } },
    ]
    ignore = ["IND011"]             # findings that are not shown; they never turn a verdict at risk into a healthy one
    baseline = "initdiag-baseline.json"

``[[tool.initdiag.models]]`` tables do as well. Files are named from the folder of ``pyproject.toml``.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from initdiag.diagnosing.findings import SKEWED_BIAS
from initdiag.diagnosing.risk import FAMILIES, LOSSES
from initdiag.diagnosing.verdict import Thresholds
from initdiag.errors import InvalidInput, TargetError, explain
from initdiag.project.targets import anchored

__all__ = ["FAIL_ON", "Config", "ModelConfig", "find_config"]

FAIL_ON = {"risk": "risk", "no-verdict": "no-verdict", "never": None}
"""What ``--fail-on`` and ``fail_on`` say, and the ``fail_on`` of `initdiag.check` that it means."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One model to check, every setting resolved.

    Attributes
    ----------
    target : str
        ``file.py:name`` or ``package.module:name``, as written.
    folder : Path
        Where files and packages are looked for.
    module, input_size, optimizer, lr, loss, draws, seed, method, spectrum, thresholds
        As in `initdiag.diagnose`.
    example_input : str or None
        Target of a batch tensor, or of a function that makes one.
    ignore : tuple of str
        Codes of findings that are dropped.
    """

    target: str
    folder: Path
    module: str | None = None
    input_size: tuple[int, ...] | None = None
    example_input: str | None = None
    optimizer: str | None = None
    lr: float | None = None
    loss: str | None = None
    draws: int | str = 1024
    seed: int = 0
    method: str = "auto"
    spectrum: bool = False
    thresholds: Thresholds = field(default_factory=Thresholds)
    ignore: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What a baseline and a test report call it: the target, and the part of the model that is checked."""
        return f"{self.target}[{self.module}]" if self.module else self.target


@dataclass(frozen=True, slots=True)
class Config:
    """A project's configuration; without a ``[tool.initdiag]`` table every value is the default.

    Attributes
    ----------
    path : Path or None
        The ``pyproject.toml`` that it was read from.
    folder : Path
        Its folder, or the one that was started from.
    models : tuple of ModelConfig
        That are configured.
    defaults : dict
        Settings for models that are not configured: attributes of `ModelConfig`.
    baseline : Path or None
        See `initdiag.project.baseline`.
    fail_on : str
        ``"risk"``, ``"no-verdict"`` or ``"never"``.
    """

    path: Path | None
    folder: Path
    models: tuple[ModelConfig, ...] = ()
    defaults: dict[str, Any] = field(default_factory=dict)
    baseline: Path | None = None
    fail_on: str = "no-verdict"

    def select(self, targets: Sequence[str], folder: Path) -> tuple[ModelConfig, ...]:
        """Return the models that ``targets`` (from ``folder``) name, with their configured settings; all where none is named.

        Raises
        ------
        TargetError
            If none is named and none is configured.
        """
        if not targets and not self.models:
            raise TargetError(
                explain(
                    expected="a TARGET, or models in [tool.initdiag] of pyproject.toml",
                    got=f"no models in {self.path}" if self.path else "neither",
                    do='Name one: initdiag check model.py:build, or models = ["model.py:build"] in the table.',
                )
            )
        found = [model for target in targets for model in self._of_target(target, folder)]
        return tuple(found) if targets else self.models

    def _of_target(self, target: str, folder: Path) -> list[ModelConfig]:
        same = [m for m in self.models if anchored(m.target, m.folder) == anchored(target, folder)]
        return same or [ModelConfig(target, folder, **self.defaults)]


def find_config(start: Path) -> Config:
    """Return the configuration of the nearest ``pyproject.toml``, from ``start`` upwards, that has a ``[tool.initdiag]`` table.

    Raises
    ------
    TargetError
        If a ``pyproject.toml`` on the way is not TOML, or the table has an unknown key or a value of the wrong kind.
    """
    start = start.resolve()
    for folder in (start, *start.parents):
        path = folder / "pyproject.toml"
        table = _table(path) if path.is_file() else None
        if table is not None:
            return _config(path, table)
    return Config(path=None, folder=start)


def _table(path: Path) -> dict[str, Any] | None:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TargetError(
            explain(expected=f"TOML in {path}", got=str(error), do="Correct the file.")
        ) from error
    tool = data.get("tool")
    table = tool.get("initdiag") if isinstance(tool, dict) else None
    if table is not None and not isinstance(table, dict):
        raise _wrong(f"{path}: [tool.initdiag]", "a table", table)
    return table


def _config(path: Path, table: dict[str, Any]) -> Config:
    where = f"{path}: [tool.initdiag]"
    values = _values(
        where, table, {**_SHARED, "models": _models, "baseline": _text, "fail_on": _fail_on}
    )
    entries, baseline = values.pop("models", []), values.pop("baseline", None)
    fail_on = values.pop("fail_on", "no-verdict")
    defaults = {**values, "thresholds": _thresholds_of(where, values.pop("thresholds", {}))}
    models = tuple(_model(where, path.parent, entry, defaults) for entry in entries)
    names = [model.name for model in models]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise _wrong(f"{where} models", "each model once", twice)
    return Config(
        path, path.parent, models, defaults, path.parent / baseline if baseline else None, fail_on
    )


def _model(
    where: str, folder: Path, entry: str | dict[str, Any], defaults: dict[str, Any]
) -> ModelConfig:
    """A model's own settings before the project's; thresholds key by key, ignored codes added."""
    own = {"target": entry} if isinstance(entry, str) else entry
    where = f"{where} model {own.get('target', '')!r}"
    kinds = {
        **_SHARED,
        "target": _text,
        "module": _text,
        "input_size": _size,
        "example_input": _text,
    }
    values = _values(where, own, kinds)
    if "target" not in values:
        raise _wrong(where, "a table with a target", own)
    limits = defaults["thresholds"]
    given = {
        "max_risk": limits.max_risk,
        "agreement_level": limits.agreement_level,
        **values.pop("thresholds", {}),
    }
    ignore = (*defaults.get("ignore", ()), *values.pop("ignore", ()))
    thresholds = _thresholds_of(where, given)
    return ModelConfig(
        **{**defaults, **values, "folder": folder, "thresholds": thresholds, "ignore": ignore}
    )


def _values(
    where: str, table: dict[str, Any], kinds: dict[str, Callable[[str, Any], Any]]
) -> dict[str, Any]:
    unknown = [key for key in table if key not in kinds]
    if unknown:
        raise TargetError(
            explain(
                expected=f"{where} with the keys {', '.join(sorted(kinds))}",
                got=", ".join(map(repr, unknown)),
                do="Correct or remove it.",
            )
        )
    return {key: kinds[key](f"{where} {key}", value) for key, value in table.items()}


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise _wrong(where, "a text", value)
    return value


def _whole(least: int) -> Callable[[str, Any], int]:
    def read(where: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise _wrong(where, f"an integer of at least {least}", value)
        return value

    return read


def _rate(where: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise _wrong(where, "a positive number", value)
    return float(value)


def _switch(where: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(where, "true or false", value)
    return value


def _choice(*choices: str) -> Callable[[str, Any], str]:
    def read(where: str, value: Any) -> str:
        if value not in choices:
            raise _wrong(where, f"one of {', '.join(map(repr, choices))}", value)
        return str(value)

    return read


def _size(where: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not value or not all(type(n) is int and n > 0 for n in value):
        raise _wrong(where, "the shape of a batch, e.g. [2, 784]", value)
    return tuple(value)


def _codes(where: str, value: Any) -> tuple[str, ...]:
    is_list = isinstance(value, list)
    if not is_list or not all(
        isinstance(code, str) and re.fullmatch(r"IND\d{3}", code) for code in value
    ):
        raise _wrong(where, f'codes of findings, e.g. ["{SKEWED_BIAS.code}"]', value)
    return tuple(value)


def _table_of(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(where, "a table, e.g. { max_risk = 0.5 }", value)
    return value


def _thresholds_of(where: str, given: dict[str, Any]) -> Thresholds:
    values = _values(
        f"{where} thresholds", given, dict.fromkeys(("max_risk", "agreement_level"), lambda _, v: v)
    )
    try:
        return Thresholds(**values)
    except InvalidInput as error:
        raise TargetError(f"{where} thresholds: {error}") from error


def _models(where: str, value: Any) -> list[str | dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(entry, str | dict) for entry in value):
        raise _wrong(where, 'a list of targets or tables, e.g. ["model.py:build"]', value)
    return value


_fail_on = _choice(*FAIL_ON)

_SHARED: dict[str, Callable[[str, Any], Any]] = {
    "optimizer": _choice(*FAMILIES),
    "lr": _rate,
    "loss": _choice(*LOSSES),
    "draws": lambda where, value: "auto" if value == "auto" else _whole(1)(where, value),
    "seed": _whole(0),
    "method": _text,
    "spectrum": _switch,
    "thresholds": _table_of,
    "ignore": _codes,
}
"""Keys of the project's table and of a model's, and how each is read."""


def _wrong(where: str, expected: str, got: Any) -> TargetError:
    return TargetError(
        explain(expected=f"{where}: {expected}", got=repr(got), do="Correct pyproject.toml.")
    )

"""``[tool.initdiag]`` of ``pyproject.toml``: which models a project checks, and how.

.. code-block:: toml

    [tool.initdiag]
    models = [
        "model.py:build",
        { target = "model.py:Big", module = "head", thresholds = { max_risk = 0.2 } },
    ]
    ignore = ["IND011"]    # not shown; a verdict at risk stays at risk
    baseline = "initdiag-baseline.json"

``[[tool.initdiag.models]]`` tables say the same. Paths are relative to the folder of
``pyproject.toml``. Loads no torch.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from initdiag._core.choices import DrawCount, FailOnOption, Family, Loss, Method
from initdiag._core.serialization import decode, encode
from initdiag._core.validation import (
    choice,
    did_you_mean,
    positive_integer,
    positive_number,
    seed_integer,
)
from initdiag.diagnosing.findings import CATALOGUE
from initdiag.diagnosing.verdict import Thresholds
from initdiag.errors import InvalidInput, TargetError, explain, shown
from initdiag.project.targets import anchored

__all__ = ["Config", "ModelConfig", "find_config"]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One model to check, every setting resolved and in range.

    Attributes
    ----------
    target : str
        ``file.py:name`` or ``package.module:name``, as written.
    folder : Path
        Where files and packages are looked for.
    module, input_size, input, output, optimizer, lr, loss
        See `initdiag.diagnose`.
    draws, seed, method, spectrum, thresholds, strict, trial
        See `initdiag.diagnose`.
    example_input : str or None
        Target of a batch tensor, or of a function that makes one.
    data : str or None
        Target of batches ``(x, y)``: the first is the example, with its targets.
    ignore : tuple of str
        Codes of findings that are dropped; each has to exist.
    timeout : float or None
        Seconds that its process may take, the import of torch included; None: no limit.

    Raises
    ------
    InvalidInput
        For a setting out of range.
    """

    target: str
    folder: Path
    module: str | None = None
    input_size: tuple[int, ...] | None = None
    example_input: str | None = None
    input: int | str | None = None
    output: int | str | None = None
    optimizer: Family | None = None
    lr: float | None = None
    loss: Loss | None = None
    draws: DrawCount = None
    seed: int = 0
    method: Method = "auto"
    spectrum: bool = False
    thresholds: Thresholds = field(default_factory=Thresholds)
    ignore: tuple[str, ...] = ()
    timeout: float | None = None
    strict: bool = False
    trial: int | None = None
    data: str | None = None

    def __post_init__(self) -> None:
        if not self.target:
            do = "Name one, e.g. model.py:build."
            raise InvalidInput(explain(expected="a target", got="''", do=do))
        if self.draws is not None and self.draws != "auto":
            positive_integer(self.draws, "draws")
        positive_integer(1 if self.trial is None else self.trial, "trial")
        seed_integer(self.seed)
        for name in ("lr", "timeout"):
            if getattr(self, name) is not None:
                positive_number(getattr(self, name), name)
        for size in self.input_size or ():
            positive_integer(size, "input_size")
        for code in self.ignore:
            choice(code, "ignore", CATALOGUE)

    @property
    def name(self) -> str:
        """What a baseline and a test report call it: target, part and output."""
        output = "" if self.output is None else f"output={self.output}"
        parts = ", ".join(filter(None, (self.module, output)))
        return f"{self.target}[{parts}]" if parts else self.target


@dataclass(frozen=True, slots=True)
class Config:
    """A project's configuration; without a ``[tool.initdiag]`` table every value is the
    default.

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
    fail_on: FailOnOption = "no-verdict"

    def select(self, targets: Sequence[str], folder: Path) -> tuple[ModelConfig, ...]:
        """Return the models that ``targets`` (from ``folder``) name, with their
        configured settings; all where none is named.

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
                    do=(
                        'Name one: initdiag check model.py:build, or models = ["model.py:build"] '
                        "in the table."
                    ),
                )
            )
        found = [model for target in targets for model in self._of_target(target, folder)]
        return tuple(found) if targets else self.models

    def _of_target(self, target: str, folder: Path) -> list[ModelConfig]:
        same = [m for m in self.models if anchored(m.target, m.folder) == anchored(target, folder)]
        return same or [ModelConfig(target, folder, **self.defaults)]


def find_config(start: Path) -> Config:
    """Return the configuration of the nearest ``pyproject.toml`` with a
    ``[tool.initdiag]``.

    Folders are looked through from ``start`` upwards.

    Raises
    ------
    TargetError
        If a ``pyproject.toml`` on the way is not TOML, or the table has an unknown key
        or a value of the wrong kind.
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
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise TargetError(
            explain(expected=f"TOML in {path}", got=str(error), do="Correct the file.")
        ) from error
    tool = data.get("tool")
    table = tool.get("initdiag") if isinstance(tool, dict) else None
    if table is not None and not isinstance(table, dict):
        raise _wrong(f"{path}: [tool.initdiag]", "a table", table)
    return table


_OF_A_MODEL = ("target", "module", "input_size", "example_input", "input", "output", "data")
"""Keys of a model's table alone."""

_SHARED = (
    "optimizer", "lr", "loss", "draws", "seed", "method", "spectrum", "thresholds", "ignore",
    "timeout", "strict", "trial",
)  # fmt: skip
"""Keys of the project's table and of a model's."""

_OF_THE_PROJECT = {"models": list[Any], "baseline": str, "fail_on": FailOnOption}
"""Keys of the project's table alone, and what they hold."""


def _config(path: Path, table: dict[str, Any]) -> Config:
    where = f"{path}: [tool.initdiag]"
    values = _values(where, table, {**_kinds(_SHARED), **_OF_THE_PROJECT})
    entries, baseline = values.pop("models", []), values.pop("baseline", None)
    fail_on = values.pop("fail_on", "no-verdict")
    defaults = {**values, "thresholds": _thresholds(where, values.get("thresholds", {}))}
    _model_config(where, {**defaults, "target": "(defaults)", "folder": path.parent})
    models = tuple(_model(where, path.parent, entry, defaults) for entry in entries)
    names = [model.name for model in models]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise _wrong(f"{where} models", "each model once", twice)
    known = path.parent / baseline if baseline else None
    return Config(path, path.parent, models, defaults, known, fail_on)


def _model(where: str, folder: Path, entry: Any, defaults: dict[str, Any]) -> ModelConfig:
    """Return one model. Its own settings win over the project's, thresholds one by one;
    codes to ignore are added up.
    """
    own = {"target": entry} if isinstance(entry, str) else entry
    if not isinstance(own, dict):
        raise _wrong(f"{where} models", "a list of targets or tables", entry)
    where = f"{where} model {own.get('target', '')!r}"
    values = _values(where, own, _kinds((*_OF_A_MODEL, *_SHARED)))
    if "target" not in values:
        raise _wrong(where, "a table with a target", own)
    given = {**encode(defaults["thresholds"]), **values.pop("thresholds", {})}
    values["thresholds"] = _thresholds(where, given)
    values["ignore"] = (*defaults.get("ignore", ()), *values.get("ignore", ()))
    return _model_config(where, {**defaults, **values, "folder": folder})


def _model_config(where: str, values: dict[str, Any]) -> ModelConfig:
    """Return the record; what is out of range is said of the table."""
    try:
        return ModelConfig(**values)
    except InvalidInput as error:
        raise TargetError(f"{where} {error}") from error


def _kinds(keys: Sequence[str]) -> dict[str, Any]:
    """Return the types of a model's settings, by which the codec reads them."""
    hints = get_type_hints(ModelConfig)
    return {key: hints[key] for key in keys} | {"thresholds": dict[str, float]}


def _values(where: str, table: dict[str, Any], kinds: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a table, each of the kind that its key asks for."""
    _only_known(where, table, kinds)
    return {key: _value(f"{where} {key}", kinds[key], value) for key, value in table.items()}


def _only_known(where: str, table: dict[str, Any], known: Collection[str]) -> None:
    unknown = [key for key in table if key not in known]
    if unknown:
        expected = f"{where} with the keys {', '.join(sorted(known))}"
        do = did_you_mean(unknown[0], known) or "Correct or remove it."
        raise TargetError(explain(expected=expected, got=", ".join(map(repr, unknown)), do=do))


def _value(where: str, kind: Any, value: Any) -> Any:
    try:
        return decode(kind, value)
    except (TypeError, ValueError) as error:
        raise TargetError(f"{where}: {error}. Correct pyproject.toml.") from error


def _thresholds(where: str, given: dict[str, Any]) -> Thresholds:
    names = [field.name for field in fields(Thresholds)]
    _only_known(f"{where} thresholds", given, names)
    try:
        return Thresholds(**given)
    except InvalidInput as error:
        raise TargetError(f"{where} thresholds: {error}") from error


def _wrong(where: str, expected: str, got: Any) -> TargetError:
    return TargetError(
        explain(expected=f"{where}: {expected}", got=shown(got), do="Correct pyproject.toml.")
    )

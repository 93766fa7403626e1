"""Records to finite JSON types and back, by their type annotations: one codec for every
record.

Non-finite numbers become the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``;
tuples and arrays become lists; enumerations become their values. ``decode(type(r),
json.loads(json.dumps(encode(r))))`` equals ``r``.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import math
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from initdiag.errors import InvalidInput, explain, shown

__all__ = ["FLAT", "Record", "decode", "encode", "flat_record"]

T = TypeVar("T")
_WRITTEN: dict[type, str] = {
    str: "a text",
    int: "an integer",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}
_PLAIN = (str, int, bool)

FLAT = {"flat": True}
"""Metadata of a field that holds a record or None: written as that record's own fields,
all of them null for None.
"""

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def encode(value: Any) -> Any:
    """Return ``value`` in finite JSON types (dict, list, str, int, float,
    bool, None).
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _encode_record(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, np.ndarray):
        return [encode(v) for v in value.tolist()]
    if isinstance(value, list | tuple):
        return [encode(v) for v in value]
    if isinstance(value, dict):
        return {str(k): encode(v) for k, v in value.items()}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float):
        return _encode_float(float(value))
    return value


def _encode_record(record: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if (flat := flat_record(type(record), field)) is None:
            found[field.name] = encode(value)
        elif value is None:
            found |= dict.fromkeys(_names(flat))
        else:
            found |= _encode_record(value)
    return found


def flat_record(kind: type, field: dataclasses.Field[Any]) -> type | None:
    """Return the record whose fields are written in place of a field marked `FLAT`,
    else None.
    """
    if "flat" not in field.metadata:
        return None
    kinds = typing.get_args(_hints(kind)[field.name])
    (record,) = (k for k in kinds if k is not type(None))
    return typing.cast("type", record)


def _names(kind: Any) -> list[str]:
    """Return the names under which the fields of a record are written."""
    names = []
    for field in dataclasses.fields(kind):
        flat = flat_record(kind, field)
        names += [field.name] * field.init if flat is None else _names(flat)
    return names


def _encode_float(value: float) -> float | str:
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def decode(kind: Any, data: Any) -> Any:
    """Return the value of type ``kind`` that ``encode`` wrote as ``data``.

    Raises
    ------
    InvalidInput
        If ``data`` does not have the form that ``kind`` is written in.
    """
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return _decode_union(typing.get_args(kind), data)
    if dataclasses.is_dataclass(kind):
        return _decode_record(kind, data)
    if origin is tuple:
        return _decode_tuple(typing.get_args(kind), data)
    if origin is list:
        (item,) = typing.get_args(kind)
        return [decode(item, v) for v in _of_type(list, data)]
    if origin is dict:
        key, item = typing.get_args(kind)
        return {decode(key, k): decode(item, v) for k, v in _of_type(dict, data).items()}
    if origin is np.ndarray:
        return np.array(_decode_items(_of_type(list, data)), dtype=np.float64)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind(data)
    if origin is typing.Literal:
        return _decode_literal(typing.get_args(kind), data)
    if kind is float:
        return _decode_float(data)
    if kind is Path:
        return Path(_of_type(str, data))
    return _of_type(kind, data) if kind in _PLAIN else data


def _of_type(kind: type, data: Any) -> Any:
    """Return ``data`` if it is of this type; True is not an int."""
    if type(data) is not kind:
        raise TypeError(f"expected {_WRITTEN[kind]}, got {shown(data)}")
    return data


def _decode_literal(choices: tuple[str, ...], data: Any) -> str:
    if not isinstance(data, str) or data not in choices:
        raise ValueError(f"expected one of {', '.join(map(repr, choices))}, got {shown(data)}")
    return data


def _decode_float(data: Any) -> float:
    if isinstance(data, str) and data in _NON_FINITE:
        return _NON_FINITE[data]
    if type(data) not in (int, float):
        raise TypeError(f"expected a number, got {shown(data)}")
    return float(data)


def _decode_union(kinds: tuple[Any, ...], data: Any) -> Any:
    if data is None:
        return None
    *others, last = (kind for kind in kinds if kind is not type(None))
    for kind in others:
        try:
            return decode(kind, data)
        except (TypeError, ValueError):
            continue
    return decode(last, data)


def _decode_tuple(kinds: tuple[Any, ...], data: Any) -> tuple[Any, ...]:
    _of_type(list, data)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(decode(kinds[0], v) for v in data)
    return tuple(decode(k, v) for k, v in zip(kinds, data, strict=True))


def _decode_items(data: Any) -> Any:
    """Return the numbers of an array of any dimension as nested lists."""
    return [_decode_items(v) for v in data] if isinstance(data, list) else decode(float, data)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _decode_record(kind: Any, data: Any) -> Any:
    names = _names(kind)
    if not isinstance(data, dict) or not set(data) <= set(names):
        raise InvalidInput(
            explain(
                expected=f"a saved {kind.__name__} with the fields {', '.join(names)}",
                got=f"{sorted(data)}" if isinstance(data, dict) else repr(type(data).__name__),
                do="Save it again with this version of initdiag.",
            )
        )
    found = dict(_decoded_fields(kind, data))
    try:
        return kind(**found)
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise _not_saved(kind, str(error)) from error


def _decoded_fields(kind: Any, data: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the fields that ``data`` has; a flat record is None where all of its own
    are null.
    """
    for field in dataclasses.fields(kind):
        if (flat := flat_record(kind, field)) is not None:
            part = {name: data[name] for name in _names(flat) if name in data}
            is_there = any(value is not None for value in part.values())
            yield field.name, _decode_record(flat, part) if is_there else None
        elif field.init and field.name in data:
            hint = _hints(kind)[field.name]
            yield field.name, _decode_field(kind, field.name, hint, data[field.name])


def _decode_field(kind: Any, name: str, hint: Any, data: Any) -> Any:
    try:
        return decode(hint, data)
    except InvalidInput:
        raise
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise _not_saved(kind, f"{name}: {error}") from error


def _not_saved(kind: Any, reason: str) -> InvalidInput:
    return InvalidInput(
        f"not a saved {kind.__name__}: {reason}. Give what initdiag saved, unchanged."
    )


class Record:
    """Base of the records that hold arrays or non-finite numbers: equality is equality
    of what is written.
    """

    __hash__: ClassVar[None]  # type: ignore[assignment]

    def to_dict(self) -> dict[str, Any]:
        """Return the record in finite JSON types: it survives JSON bit for bit."""
        return typing.cast("dict[str, Any]", encode(self))

    @classmethod
    def from_dict(cls: type[T], data: dict[str, Any]) -> T:
        """Return the record that ``to_dict`` wrote.

        Raises
        ------
        InvalidInput
            If ``data`` was not written by ``to_dict``.
        """
        return typing.cast("T", decode(cls, data))

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and encode(self) == encode(other)

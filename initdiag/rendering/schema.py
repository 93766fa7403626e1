"""The JSON Schema of a saved report, from the records' own annotations and docstrings:
it cannot fall behind the codec.

The file ``report.schema.json`` beside this module is `report_schema` as written; it is
what other tools read.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import json
import re
import types
import typing
from importlib import resources
from typing import Any

import numpy as np

from initdiag._core.serialization import flat_record
from initdiag.diagnosing.findings import CATALOGUE
from initdiag.diagnosing.report import SCHEMA_VERSION, Report

__all__ = ["report_schema", "shipped_schema"]

_NUMBER = {"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]}
_SIMPLE: dict[Any, dict[str, Any]] = {
    str: {"type": "string"}, bool: {"type": "boolean"}, int: {"type": "integer"},
    float: {"$ref": "#/$defs/number"},
    type(None): {"type": "null"},
}  # fmt: skip


def report_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of ``Report.to_dict`` for this schema
    version.
    """
    definitions: dict[str, Any] = {
        "number": {"description": "a number, or the name of one that is not finite", **_NUMBER}
    }
    root = _record(Report, definitions)
    root["properties"]["schema_version"] = {"const": SCHEMA_VERSION}
    definitions["Finding"]["properties"]["code"]["examples"] = list(CATALOGUE)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:initdiag:report:{SCHEMA_VERSION}",
        "title": f"initdiag report, schema version {SCHEMA_VERSION}",
        **root,
        "$defs": dict(sorted(definitions.items())),
    }


def shipped_schema() -> dict[str, Any]:
    """Return the schema that the package ships."""
    text = (
        resources.files("initdiag.rendering")
        .joinpath("report.schema.json")
        .read_text(encoding="utf-8")
    )
    return typing.cast("dict[str, Any]", json.loads(text))


def _schema(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if kind in _SIMPLE:
        return dict(_SIMPLE[kind])
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_schema(argument, definitions) for argument in arguments]}
    if origin is np.ndarray:
        return {"type": "array", "items": _schema(float, definitions)}
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(arguments[1], definitions)}
    if origin is tuple:
        return _tuple(arguments, definitions)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return {"enum": [member.value for member in kind]}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if kind.__name__ not in definitions:
            # a record that holds itself would come back here
            definitions[kind.__name__] = {}
            definitions[kind.__name__] = _record(kind, definitions)
        return {"$ref": f"#/$defs/{kind.__name__}"}
    raise TypeError(f"no JSON form of {kind!r}")


def _tuple(arguments: tuple[Any, ...], definitions: dict[str, Any]) -> dict[str, Any]:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return {"type": "array", "items": _schema(arguments[0], definitions)}
    items = [_schema(argument, definitions) for argument in arguments]
    return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}


def _record(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    hints, texts = typing.get_type_hints(kind), _descriptions(kind)
    properties: dict[str, Any] = {}
    required: list[str] = []
    for field in dataclasses.fields(kind):
        if (flat := flat_record(kind, field)) is not None:
            inner = _record(flat, definitions)
            properties |= {name: _or_null(part) for name, part in inner["properties"].items()}
            required += inner["required"]
        elif field.init:
            described = {"description": texts[field.name]} if field.name in texts else {}
            properties[field.name] = {**described, **_schema(hints[field.name], definitions)}
            required += [] if _has_default(field) else [field.name]
    return {
        "description": (inspect.getdoc(kind) or "").split("\n", 1)[0],
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _has_default(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.default is not missing or field.default_factory is not missing


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of what may be null as well; its description stays outside."""
    inner = {key: value for key, value in schema.items() if key != "description"}
    outer = {key: value for key, value in schema.items() if key == "description"}
    return {**outer, "anyOf": [inner, {"type": "null"}]}


def _descriptions(kind: Any) -> dict[str, str]:
    """Return what the docstring's section "Attributes" says about each field."""
    section = (inspect.getdoc(kind) or "").partition("Attributes\n----------\n")[2]
    found = {}
    for names, text in re.findall(
        r"^(\S[^\n:]*)(?: : [^\n]*)?\n((?:    [^\n]*\n?)+)", section, re.M
    ):
        found.update(dict.fromkeys(names.split(", "), " ".join(text.split())))
    return found

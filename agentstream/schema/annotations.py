"""Reading Python's annotations and the classes that have fields (pure).

What a type is called, what a string annotation means, which fields a dataclass
or a TypedDict has.  JSON schemas are describe.py's.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
import typing
from typing import Any, Dict, List, NamedTuple, Optional, Union

__all__ = [
    "Field",
    "Undescribable",
    "dataclass_fields",
    "evaluate",
    "is_special",
    "is_union",
    "name_of",
    "named_tuple_fields",
    "typed_dict_fields",
]


class Undescribable(Exception):
    """An annotation has no JSON schema; the text says what to do about it."""


class Field(NamedTuple):
    """A field of such a class; `default` is `inspect.Parameter.empty` for none."""

    name: str
    annotation: Any
    required: bool
    default: Any = inspect.Parameter.empty


#: What X | Y is, from 3.10 on.
_UNION_TYPES = (types.UnionType,) if hasattr(types, "UnionType") else ()


def evaluate(annotation: Any, names: Dict[str, Any]) -> Any:
    """The type that an annotation (a string, maybe) means among `names`; raises Undescribable."""
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(holder, names, include_extras=True)["it"]
    except NameError as exc:
        raise Undescribable(
            f"its annotation {annotation!r} cannot be resolved ({exc}): "
            "define or import the type at the top of the module"
        ) from None
    except Exception as exc:
        raise Undescribable(
            f"its annotation {annotation!r} cannot be evaluated ({exc}): write it as this "
            "Python understands it (before 3.10 Optional[X], not X | None)"
        ) from exc


def is_union(annotation: Any) -> bool:
    """Is it Optional[X], Union[X, Y] or X | Y?"""
    return typing.get_origin(annotation) is Union or isinstance(annotation, _UNION_TYPES)


def name_of(annotation: Any) -> str:
    """A type's name, for a message."""
    return getattr(annotation, "__qualname__", None) or repr(annotation)


def is_special(origin: Any, name: str) -> bool:
    """Is it the Literal, Required, ... of typing, or typing_extensions' own?"""
    # typing_extensions has its own ones where the interpreter's is missing or old.
    return origin is not None and (
        origin is getattr(typing, name, None) or getattr(origin, "_name", None) == name
    )


def _hints(kind: type) -> Dict[str, Any]:
    # Up to 3.9 the module must be there, even if no annotation is a text.
    names: Optional[Dict[str, Any]] = None if kind.__module__ in sys.modules else {}
    try:
        return typing.get_type_hints(kind, names, include_extras=True)
    except Exception as exc:
        raise Undescribable(
            f"the annotations of {name_of(kind)} cannot be resolved ({exc}): define or import "
            "their types at the top of its module"
        ) from exc


def dataclass_fields(kind: Any) -> List[Field]:
    """The fields that a dataclass is made with; raises Undescribable."""
    hints, fields = _hints(kind), []
    for field in dataclasses.fields(kind):
        if field.init:
            missing = dataclasses.MISSING
            required = field.default is missing and field.default_factory is missing
            default = inspect.Parameter.empty if field.default is missing else field.default
            fields.append(Field(field.name, hints[field.name], required, default))
    known = {field.name for field in fields}
    for name, parameter in inspect.signature(kind).parameters.items():
        if name not in known and parameter.default is inspect.Parameter.empty:
            raise Undescribable(f"{name_of(kind)} needs {name}, which is not one of its fields")
    return fields


def named_tuple_fields(kind: Any) -> List[Field]:
    """The fields of a NamedTuple; raises Undescribable."""
    hints, defaults = _hints(kind), kind._field_defaults
    empty = inspect.Parameter.empty
    return [
        Field(name, hints.get(name, Any), name not in defaults, defaults.get(name, empty))
        for name in kind._fields
    ]


def typed_dict_fields(kind: Any) -> List[Field]:
    """The keys of a TypedDict; raises Undescribable."""
    fields = []
    for name, hint in _hints(kind).items():
        required, annotation = name in kind.__required_keys__, hint
        while True:
            origin = typing.get_origin(annotation)
            qualifiers = ("Required", "NotRequired", "ReadOnly")
            word = next((word for word in qualifiers if is_special(origin, word)), None)
            if word is None:
                break
            required = {"Required": True, "NotRequired": False}.get(word, required)
            annotation = typing.get_args(annotation)[0]
        fields.append(Field(name, annotation, required))
    return fields

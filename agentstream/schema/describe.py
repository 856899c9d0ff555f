"""A Python annotation -> a JSON schema and the way back (pure).

`shape_of` describes one annotation and says how a JSON value that fits the
schema becomes the Python value that the annotation promises.  Nothing here
knows functions or tools; what cannot be described is refused, never guessed.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import decimal
import enum
import inspect
import json
import math
import pathlib
import typing
import uuid
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple, Union

from agentstream.schema import scalars
from agentstream.schema.annotations import (
    Field,
    Undescribable,
    dataclass_fields,
    is_special,
    is_union,
    name_of,
    named_tuple_fields,
    typed_dict_fields,
)
from agentstream.schema.docstring import parse_docstring
from agentstream.schema.models import SelfReference, field_of, inlined, validated
from agentstream.schema.problems import Invalid, Problem
from agentstream.schema.validate import matches

__all__ = ["Shape", "describe", "shape_of"]

Convert = Callable[[Any], Any]


class Shape(NamedTuple):
    """What an annotation asks for.

    Attributes:
        schema: the JSON schema; the caller's to change.
        convert: makes the Python value of a JSON value that fits the schema, or
            raises Invalid; None where the JSON value is it.
    """

    schema: Dict[str, Any]
    convert: Optional[Convert] = None


_LISTS = (
    list,
    collections.abc.Sequence,
    collections.abc.MutableSequence,
    collections.abc.Collection,
    collections.abc.Iterable,
)
_SETS = (set, frozenset, collections.abc.Set, collections.abc.MutableSet)
_DICTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
#: Constraints as annotated_types and pydantic's Field name them.
_CONSTRAINTS = {
    "ge": "minimum",
    "le": "maximum",
    "gt": "exclusiveMinimum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
    "min_length": "min",
    "max_length": "max",
}


def shape_of(annotation: Any, within: Tuple[Any, ...] = ()) -> Shape:
    """The shape of a type; `within` are the types it lies in.  Raises Undescribable."""
    for known, shape in _PLAIN:
        if annotation is known:
            return Shape(dict(shape.schema), shape.convert)
    if any(annotation is outer for outer in within):
        raise Undescribable(f"{name_of(annotation)} refers to itself: take a flat type instead")
    if hasattr(annotation, "__supertype__"):  # NewType
        return shape_of(annotation.__supertype__, within)
    if type(annotation).__name__ == "TypeAliasType":
        return shape_of(annotation.__value__, (*within, annotation))
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _annotated(annotation, within)
    if is_union(annotation):
        return _union(typing.get_args(annotation), within)
    if is_special(origin, "Literal"):
        return _choice(typing.get_args(annotation))
    kind = origin or annotation
    if kind is tuple:
        return _tuple(typing.get_args(annotation), within)
    if any(kind is known for known in _LISTS):
        return _array(typing.get_args(annotation), None, within)
    if any(kind is known for known in _SETS):
        return _array(typing.get_args(annotation), frozenset if kind is frozenset else set, within)
    if any(kind is known for known in _DICTS):
        return _mapping(typing.get_args(annotation), within)
    if isinstance(annotation, type) and origin is None:
        return _class(annotation, within)
    raise _refusal(annotation)


def describe(annotation: Any, default: Any, said: str, within: Tuple[Any, ...] = ()) -> Shape:
    """The shape of a parameter or field: its type's, with its description and default.

    Args:
        annotation: its type.
        default: its default; `inspect.Parameter.empty` for none.
        said: what the docstring says of it; Annotated wins.
        within: the types it lies in.
    """
    field = field_of(default)
    if field is not None:  # def search(limit: int = Field(default=3, ge=1))
        annotation = typing.Annotated[annotation, field.info]
        default = inspect.Parameter.empty if field.required else field.info.default
    shape = shape_of(annotation, within)
    if default is None and not matches(None, shape.schema):
        shape = shape_of(Optional[annotation], within)
    if said:
        shape.schema.setdefault("description", said)
    stated = _json_default(default)
    if stated is not None:
        shape.schema["default"] = stated
    return shape


def _json_default(default: Any) -> Any:
    """A default as JSON; None where there is none, or it is no plain, short JSON."""
    plain = default.value if isinstance(default, enum.Enum) else default
    if isinstance(plain, datetime.datetime):
        plain = plain.isoformat()
    elif isinstance(plain, scalars.WRITTEN):
        plain = str(plain)
    if not isinstance(plain, (str, int, float, list, tuple, dict)):
        return None
    try:
        text = json.dumps(plain, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None
    return json.loads(text) if len(text) <= 1000 else None


def _refusal(annotation: Any) -> Undescribable:
    if isinstance(annotation, (str, typing.ForwardRef)):
        return Undescribable(f"the forward reference {annotation!r} is not resolved: name the type")
    if hasattr(annotation, "__get_validators__"):
        return Undescribable(
            f"{name_of(annotation)} is a model of pydantic 1: pydantic 2 is needed"
        )
    return Undescribable(
        f"{name_of(annotation)} has no JSON schema here: use str, int, float, bool, list, dict, "
        "Optional, Literal, Enum, a dataclass, a NamedTuple, a TypedDict or a pydantic model, "
        "or bring a JSON schema, Tool(...) or output={...}"
    )


_PLAIN: List[Tuple[Any, Shape]] = [
    (str, Shape({"type": "string"})),
    (bool, Shape({"type": "boolean"})),
    (int, Shape({"type": "integer"})),
    (float, Shape({"type": "number"}, scalars.real)),
    (None, Shape({"type": "null"})),
    (type(None), Shape({"type": "null"})),
    (Any, Shape({})),
    (object, Shape({})),
    (datetime.datetime, Shape({"type": "string", "format": "date-time"}, scalars.moment)),
    (datetime.date, Shape({"type": "string", "format": "date"}, scalars.day)),
    (datetime.time, Shape({"type": "string", "format": "time"}, scalars.clock_time)),
    (datetime.timedelta, Shape({"type": "string", "format": "duration"}, scalars.duration)),
    (uuid.UUID, Shape({"type": "string", "format": "uuid"}, scalars.identifier)),
    (decimal.Decimal, Shape({"anyOf": [{"type": "number"}, {"type": "string"}]}, scalars.exact)),
    (pathlib.Path, Shape({"type": "string", "format": "path"}, pathlib.Path)),
    (pathlib.PurePath, Shape({"type": "string", "format": "path"}, pathlib.PurePath)),
]


def _annotated(annotation: Any, within: Tuple[Any, ...]) -> Shape:
    shape = shape_of(annotation.__origin__, within)
    for extra in annotation.__metadata__:
        said = extra if isinstance(extra, str) else getattr(extra, "description", None)
        said = said or getattr(extra, "documentation", None)
        if isinstance(said, str) and said:
            shape.schema["description"] = said
        for part in (extra, *_tuple_of(getattr(extra, "metadata", ()))):
            for attribute, keyword in _CONSTRAINTS.items():
                bound = getattr(part, attribute, None)
                if isinstance(bound, (int, float)) and not isinstance(bound, bool):
                    _constrain(shape.schema, keyword, bound)
            pattern = getattr(part, "pattern", None)
            if isinstance(pattern, str):
                shape.schema["pattern"] = pattern
    return shape


def _tuple_of(value: Any) -> Tuple[Any, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else ()


def _constrain(schema: Dict[str, Any], keyword: str, bound: Union[int, float]) -> None:
    for target in schema.get("anyOf", [schema]):  # Optional[...]: the bound is the value's
        kind = target.get("type")
        if kind == "null":
            continue
        if keyword in ("min", "max"):
            target[keyword + {"array": "Items", "object": "Properties"}.get(kind, "Length")] = bound
        else:
            target[keyword] = bound


def _union(members: Tuple[Any, ...], within: Tuple[Any, ...]) -> Shape:
    shapes = [shape_of(member, within) for member in members]
    schemas = [dict(shape.schema) for shape in shapes]
    described = [schema for schema in schemas if schema != {"type": "null"}]
    # Optional[Annotated[int, "..."]] describes the parameter, not one of its forms.
    said = described[0].pop("description", None) if len(described) == 1 else None
    schema: Dict[str, Any] = {"anyOf": schemas}
    if said is not None:
        schema["description"] = said
    if all(shape.convert is None for shape in shapes):
        return Shape(schema)

    def convert(value: Any) -> Any:
        failure = Invalid.because("fits none of its types")
        for shape, fits in zip(shapes, schemas):
            if matches(value, fits):
                try:
                    return shape.convert(value) if shape.convert else value
                except Invalid as exc:
                    failure = exc
        raise failure

    return Shape(schema, convert)


def _choice(options: Tuple[Any, ...]) -> Shape:
    """Literal and Enum: `options` are the Python values."""
    plain = [option.value if isinstance(option, enum.Enum) else option for option in options]
    for value in plain:
        usable = value is None or isinstance(value, (str, int, float))
        if not usable or (isinstance(value, float) and not math.isfinite(value)):
            raise Undescribable(f"the choice {value!r} is not a JSON value: use str or int values")
    if not plain:
        raise Undescribable("there is nothing to choose from: it has no members")
    kinds = {_kind(value) for value in plain}
    values = json.loads(json.dumps(plain))  # an IntEnum's or a str subclass's are plain then
    schema: Dict[str, Any] = {"enum": values}
    if len(kinds) == 1 and None not in kinds:
        schema = {"type": kinds.pop(), "enum": values}
    if not any(isinstance(option, enum.Enum) for option in options):
        return Shape(schema)

    def convert(value: Any) -> Any:
        for option, candidate in zip(options, values):
            if type(value) is type(candidate) and value == candidate:
                return option
        raise Invalid.because("is none of the choices")

    return Shape(schema, convert)


def _kind(value: Any) -> Optional[str]:
    kinds = {bool: "boolean", str: "string", int: "integer", float: "number"}
    return next((name for kind, name in kinds.items() if isinstance(value, kind)), None)


def _tuple(members: Tuple[Any, ...], within: Tuple[Any, ...]) -> Shape:
    if not members or (len(members) == 2 and members[1] is Ellipsis):
        return _array(members[:1], tuple, within)
    shapes = [shape_of(member, within) for member in members]
    schemas = [shape.schema for shape in shapes]
    # "items" besides "prefixItems": some servers refuse an array without it.
    alike = all(schema == schemas[0] for schema in schemas)
    schema: Dict[str, Any] = {"type": "array", "minItems": len(shapes), "maxItems": len(shapes)}
    if not alike:
        schema["prefixItems"] = schemas
    schema["items"] = schemas[0] if alike else {"anyOf": schemas}

    def convert(value: Any) -> Any:
        return tuple(_each(enumerate(value), lambda at: shapes[at].convert).values())

    return Shape(schema, convert)


def _array(members: Tuple[Any, ...], make: Optional[Convert], within: Tuple[Any, ...]) -> Shape:
    item = shape_of(members[0] if members else Any, within)
    schema: Dict[str, Any] = {"type": "array", "items": item.schema}
    unique = make in (set, frozenset)
    if unique:
        schema["uniqueItems"] = True
    if make is None and item.convert is None:
        return Shape(schema)

    def convert(value: Any) -> Any:
        items = list(_each(enumerate(value), lambda _: item.convert).values())
        try:
            return make(items) if make else items
        except TypeError:
            raise Invalid.because("must hold simple values only") from None

    return Shape(schema, convert)


def _mapping(members: Tuple[Any, ...], within: Tuple[Any, ...]) -> Shape:
    key, kind = members if members else (str, Any)
    while hasattr(key, "__supertype__"):
        key = key.__supertype__
    if key is not str and key is not Any:
        raise Undescribable(f"JSON keys are strings, not {name_of(key)}: use dict[str, ...]")
    item = shape_of(kind, within)
    schema: Dict[str, Any] = {"type": "object"}
    if item.schema:
        schema["additionalProperties"] = item.schema
    if item.convert is None:
        return Shape(schema)
    return Shape(schema, lambda value: _each(value.items(), lambda _: item.convert))


def _each(pairs: Any, converter: Callable[[Any], Optional[Convert]]) -> Dict[Any, Any]:
    """Each value converted by its key's converter; an Invalid gets the key as its place."""
    out = {}
    problems: List[Problem] = []
    cause: Optional[BaseException] = None
    for key, value in pairs:
        convert = converter(key)
        try:
            out[key] = convert(value) if convert else value
        except Invalid as exc:
            cause = cause or exc.__cause__
            problems.extend(exc.under(key).problems)
    if problems:
        raise Invalid(*problems) from cause
    return out


def _class(kind: type, within: Tuple[Any, ...]) -> Shape:
    if issubclass(kind, enum.Enum):
        return _choice(tuple(kind))
    if callable(getattr(kind, "model_json_schema", None)) and hasattr(kind, "model_validate"):
        return _model(kind)
    if dataclasses.is_dataclass(kind):
        return _object(kind, dataclass_fields(kind), lambda values: _built(kind, values), within)
    if issubclass(kind, tuple) and hasattr(kind, "_field_defaults"):
        return _object(kind, named_tuple_fields(kind), lambda values: _built(kind, values), within)
    if issubclass(kind, dict) and hasattr(kind, "__required_keys__"):
        return _object(kind, typed_dict_fields(kind), None, within)
    raise _refusal(kind)


def _model(kind: Any) -> Shape:
    try:
        schema = inlined(kind.model_json_schema())
    except SelfReference:
        raise Undescribable(
            f"{name_of(kind)} refers to itself: take a flat model instead"
        ) from None
    except Exception as exc:
        raise Undescribable(f"the schema of {name_of(kind)} cannot be made: {exc}") from exc
    return Shape(schema, lambda value: validated(kind, value))


def _object(
    kind: type, fields: List[Field], build: Optional[Convert], within: Tuple[Any, ...]
) -> Shape:
    said = parse_docstring(kind.__doc__).parameters
    shapes = {}
    for field in fields:
        try:
            shapes[field.name] = describe(
                field.annotation, field.default, said.get(field.name, ""), (*within, kind)
            )
        except Undescribable as exc:
            raise Undescribable(f"{name_of(kind)}.{field.name}: {exc}") from None
    schema: Dict[str, Any] = {
        "type": "object",
        "properties": {name: shape.schema for name, shape in shapes.items()},
        "required": [field.name for field in fields if field.required],
        "additionalProperties": False,
    }
    if build is None and all(shape.convert is None for shape in shapes.values()):
        return Shape(schema)

    def convert(value: Any) -> Any:
        values = _each(value.items(), lambda name: shapes[name].convert)
        return build(values) if build else values

    return Shape(schema, convert)


def _built(kind: Any, values: Dict[str, Any]) -> Any:
    try:
        return kind(**values)
    except Exception as exc:
        raise Invalid.refused(exc) from exc

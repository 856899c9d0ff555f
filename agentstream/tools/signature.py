"""A Python function -> what a model may give it, and what we give it ourselves.

Reads a signature and its docstring once, when a tool is made; every refusal is a
ConfigError that names the tool and the parameter.  Nothing is called here.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from agentstream.cancel import CancelToken
from agentstream.errors import ConfigError
from agentstream.schema.annotations import Undescribable, evaluate, is_union
from agentstream.schema.describe import Shape, describe
from agentstream.schema.docstring import description, parse_docstring
from agentstream.schema.models import field_of
from agentstream.tools.context import RunContext

__all__ = [
    "Injected",
    "Signature",
    "check_function",
    "check_schema_fits",
    "injected",
    "read",
    "summary",
]

_INJECTED = (CancelToken, RunContext)


class Injected(NamedTuple):
    """A parameter that the library fills in.

    Attributes:
        kind: CancelToken or RunContext.
        optional: True where the annotation takes None too.
    """

    kind: type
    optional: bool


class Signature(NamedTuple):
    """What a function takes.

    Attributes:
        schema: the JSON schema of what the model gives.
        shapes: how each of those becomes a Python value, by name.
        defaults: makes what the function must be given for a parameter that the model
            leaves out, where its own default is a `Field(...)`.
    """

    schema: Dict[str, Any]
    shapes: Dict[str, Shape]
    defaults: Dict[str, Callable[[], Any]]


def check_function(function: Any, tool: str) -> None:
    """Raises ConfigError for what cannot be a tool at all: coroutines, generators, classes."""
    if not callable(function):
        raise ConfigError(f"tool {tool!r}: {type(function).__name__} is not a function")
    if isinstance(function, type):
        raise ConfigError(f"tool {tool!r}: {function.__name__} is a class; give a function")
    # Not what a decorator wraps: a plain wrapper may well run a coroutine to its end.
    base = _outer(function)
    if inspect.iscoroutinefunction(base) or inspect.isasyncgenfunction(base):
        raise ConfigError(
            f"tool {tool!r}: async functions are not called here; give a plain function, "
            "which runs in a thread of its own"
        )
    if inspect.isgeneratorfunction(base):
        raise ConfigError(f"tool {tool!r}: a generator has no one result; return a list")


def summary(function: Callable[..., Any]) -> str:
    """The paragraphs of the function's docstring before its sections; "" if there are none."""
    return description(_base(function).__doc__)


def read(function: Callable[..., Any], tool: str) -> Signature:
    """The schema of `function`, for the tool of that name; raises ConfigError."""
    said = parse_docstring(_base(function).__doc__).parameters
    shapes: Dict[str, Shape] = {}
    required: List[str] = []
    defaults: Dict[str, Callable[[], Any]] = {}
    for name, parameter in _parameters(function, tool).items():
        _check_parameter(parameter, tool)
        try:
            annotation = _evaluated(function, parameter)
            if _injected(annotation) is not None:
                continue
            shapes[name] = describe(annotation, parameter.default, said.get(name, ""))
        except Undescribable as exc:
            raise ConfigError(f"tool {tool!r}, parameter {name!r}: {exc}") from exc.__cause__
        field = field_of(parameter.default)
        if field is not None and field.make is not None:
            defaults[name] = field.make
        elif field is not None or parameter.default is inspect.Parameter.empty:
            required.append(name)
    schema: Dict[str, Any] = {
        "type": "object",
        "properties": {name: shape.schema for name, shape in shapes.items()},
        "required": required,
        "additionalProperties": False,
    }
    return Signature(schema, shapes, defaults)


def injected(function: Callable[..., Any]) -> Dict[str, Injected]:
    """The parameters that ask for a CancelToken or a RunContext, by name."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # a builtin that does not tell
        return {}
    found = {}
    for name, parameter in parameters.items():
        try:
            asked = _injected(_evaluated(function, parameter))
        except Undescribable:  # of no concern to one who brings a schema
            continue
        if asked is not None:
            found[name] = asked
    return found


def check_schema_fits(
    function: Callable[..., Any], schema: Dict[str, Any], given: Dict[str, Injected], tool: str
) -> bool:
    """Can `function` be called with what `schema` lets through?  Raises ConfigError if not.

    Returns True if it takes any keyword.
    """
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return True
    kinds = inspect.Parameter
    takes_all = any(one.kind is kinds.VAR_KEYWORD for one in parameters.values())
    properties, required = schema["properties"], schema.get("required", [])
    for name in properties:
        if name in given:
            raise ConfigError(f"tool {tool!r}, parameter {name!r}: its value is ours to give")
        if name not in parameters and not takes_all:
            raise ConfigError(f"tool {tool!r}, parameter {name!r}: the function does not take it")
    for name, one in parameters.items():
        if one.kind is kinds.POSITIONAL_ONLY and one.default is kinds.empty:
            raise ConfigError(f"tool {tool!r}, parameter {name!r}: it cannot be positional-only")
        variadic = one.kind in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)
        needed = one.default is kinds.empty and not variadic and name not in given
        if needed and not (name in properties and name in required):
            raise ConfigError(
                f"tool {tool!r}, parameter {name!r}: the function needs it, "
                "so the schema must require it"
            )
    return takes_all


def _outer(function: Any) -> Any:
    """The plain function under partials, methods and callable objects."""
    function = _without_partials(function)
    plain = (types.FunctionType, types.MethodType, types.BuiltinFunctionType)
    if not isinstance(function, plain):
        function = getattr(type(function), "__call__", function)  # noqa: B004  # not a test
    return getattr(function, "__func__", function)


def _base(function: Any) -> Any:
    """The function whose annotations and docstring `inspect.signature` reads."""
    return _outer(inspect.unwrap(_without_partials(function)))


def _without_partials(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _parameters(function: Callable[..., Any], tool: str) -> Dict[str, inspect.Parameter]:
    try:
        found = dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        raise ConfigError(
            f"tool {tool!r}: its signature cannot be read; bring a schema with Tool(...)"
        ) from None
    bound: Any = function
    while isinstance(bound, functools.partial):
        for name in bound.keywords:  # given by the program: not the model's to see or to change
            found.pop(name, None)
        bound = bound.func
    return found


def _check_parameter(parameter: inspect.Parameter, tool: str) -> None:
    where = f"tool {tool!r}, parameter {parameter.name!r}"
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
        raise ConfigError(f"{where}: {stars}{parameter.name} cannot be described; name each one")
    if parameter.kind is parameter.POSITIONAL_ONLY:
        raise ConfigError(f"{where}: it is positional-only; arguments are given by name")
    if parameter.annotation is parameter.empty:
        if parameter.name in ("self", "cls"):
            raise ConfigError(f"{where}: decorate the bound method, tool(object.method)")
        raise ConfigError(f"{where}: it has no annotation; write {parameter.name}: str, say")


def _evaluated(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    names = getattr(_base(function), "__globals__", {})
    return evaluate(parameter.annotation, names)


def _injected(annotation: Any) -> Optional[Injected]:
    if typing.get_origin(annotation) is typing.Annotated:
        return _injected(annotation.__origin__)
    # A list[str] passes for a class on Python 3.9.
    if typing.get_origin(annotation) is None and isinstance(annotation, type):
        if not issubclass(annotation, _INJECTED):
            return None
        return Injected(CancelToken if issubclass(annotation, CancelToken) else RunContext, False)
    members = typing.get_args(annotation)
    if is_union(annotation) and len(members) == 2 and type(None) in members:
        asked = _injected(members[0] if members[1] is type(None) else members[1])
        return None if asked is None else asked._replace(optional=True)
    return None

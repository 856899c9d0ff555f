"""Tool: one function that a model may call; @tool makes it of a plain function.

Describing it, checking what the model sent, and calling it.  Pools, timeouts,
messages and events are the agent's business, and so is what the function raises.
"""

from __future__ import annotations

import copy
import functools
import json
import re
import sys
import warnings
from typing import Any, Callable, Dict, Mapping, Optional, Union, overload

from agentstream import checks
from agentstream.cancel import CancelToken
from agentstream.errors import ConfigError, ToolError
from agentstream.schema.annotations import Undescribable
from agentstream.schema.describe import Shape
from agentstream.schema.parse import parse_json
from agentstream.schema.problems import Invalid, Problem
from agentstream.schema.strict import strict_schema
from agentstream.schema.validate import Validator, dangling, resolve
from agentstream.tools import signature
from agentstream.tools.context import RunContext

__all__ = ["Tool", "as_tool", "tool"]

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_MOST_PROBLEMS = 5
_ON_UNKNOWN = ("rerun", "suspend", "fail")


class Tool:
    """A function that a model may call, and its description.

    Use `@tool` where the signature says it all.  Make a Tool by hand where you
    have the schema already: the function is then called with what the model
    sent, checked against the schema, as keywords.

    Args:
        name: what the model calls it: 1 to 64 letters, digits, "_" and "-".
        description: what it does, for the model.
        parameters: the JSON schema of its arguments, an object.
        function: what is called; may take a CancelToken or a RunContext by annotation.
        timeout: seconds a call may take; None for the agent's setting.
        strict: ask the server to keep to the schema (OpenAI's strict mode).
        repeatable: the same call with the same result is no sign of a loop (a job's
            state, say).
        alone: nothing runs beside it: calls of one answer that come before it end
            first, those after it wait.  For what writes.
        on_unknown: what a resumed run does with a call that was begun when its process
            died, so that nobody knows whether it was made: "rerun" makes it again, which
            is for what only reads, or may be done twice; "suspend" asks a person; "fail"
            fails the run.  None, for nothing said, is "suspend".

    Raises ConfigError for a name, schema, function or setting that cannot work.
    A Tool is callable like its function, and safe to use from any thread.
    """

    __name__: str

    def __init__(
        self,
        name: str,
        description: str,
        parameters: Mapping[str, Any],
        function: Callable[..., Any],
        *,
        timeout: Optional[float] = None,
        strict: bool = False,
        repeatable: bool = False,
        alone: bool = False,
        on_unknown: Optional[str] = None,
    ) -> None:
        _check_name(name)
        signature.check_function(function, name)
        # Without the function's own attributes: they could be called like ours.
        functools.update_wrapper(self, function, updated=())
        self.name = name
        self.description = _checked_text(name, description)
        self.parameters = _checked_schema(name, parameters)
        self.function = function
        self.timeout = _checked_timeout(name, timeout)
        self.strict = bool(strict)
        self.repeatable = bool(repeatable)
        self.alone = bool(alone)
        self.on_unknown = _checked_on_unknown(name, on_unknown)
        self._shapes: Dict[str, Shape] = {}
        self._defaults: Dict[str, Callable[[], Any]] = {}
        self._injected = signature.injected(function)
        takes_all = signature.check_schema_fits(function, self.parameters, self._injected, name)
        self._root = self.parameters
        if not takes_all:  # then an open schema would let through what the call cannot take
            self._root = {**self.parameters, "additionalProperties": False}
            self._root.pop("patternProperties", None)
        if strict:
            _strict(name, self.parameters)

    def __repr__(self) -> str:
        return f"<Tool {self.name}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function as if it had never been made a tool."""
        return self.function(*args, **kwargs)

    def to_openai(self) -> Dict[str, Any]:
        """The tool as a chat-completions request lists it; a copy, the caller's to change."""
        parameters = copy.deepcopy(self.parameters)
        described: Dict[str, Any] = {"name": self.name, "description": self.description}
        described["parameters"] = _strict(self.name, parameters) if self.strict else parameters
        if self.strict:
            described["strict"] = True
        return {"type": "function", "function": described}

    def bind(self, arguments_json: str) -> Dict[str, Any]:
        """The arguments that a model sent, as the Python values that `call` takes.

        An empty text and null are no arguments.  A value of the wrong type is
        refused, but for what models are known to get wrong and what can only
        be meant one way: "5" where a number is wanted, 3.0 where an integer is,
        "true" and "false" for a boolean, "null" and "none" for null, a string
        that holds the JSON of a wanted array or object, and null for an
        argument that may be left out (its default counts then).

        Raises ToolError, whose text tells the model what to send instead.
        Nothing is executed but the checks of the caller's own types.
        """
        if not isinstance(arguments_json, str):
            raise self._refusal("the arguments must be a JSON text.")
        try:
            given = parse_json(arguments_json) if arguments_json.strip() else None
            steps = 10_000 + 50 * len(arguments_json)
            checked = Validator(self._root, steps=steps).check({} if given is None else given)
            self._refuse_ours(checked)
            return self._converted(checked)
        except Invalid as exc:
            raise self._refusal(self._explained(exc)) from exc.__cause__
        except RecursionError:
            raise self._refusal("the arguments are nested too deeply.") from None
        except ValueError as exc:  # parse_json's
            raise self._refusal(f"the arguments cannot be read: {exc}. {self._form()}") from None

    def call(
        self,
        arguments: Mapping[str, Any],
        cancel: Optional[CancelToken] = None,
        context: Optional[object] = None,
    ) -> Any:
        """Call the function with what `bind` gave; what it returns, and what it raises.

        Args:
            arguments: the function's arguments by name.
            cancel: for a parameter annotated CancelToken; if None, the context's
                token, or one that nobody cancels.
            context: for a parameter annotated RunContext; if None, an empty one.
        """
        if cancel is None and isinstance(context, RunContext):
            cancel = context.cancel
        ours: Dict[str, Any] = {}
        for name, asked in self._injected.items():
            value = cancel if asked.kind is CancelToken else context
            if value is None and not asked.optional:
                token = cancel or CancelToken()
                value = token if asked.kind is CancelToken else RunContext(cancel=token)
            ours[name] = value
        for name, make in self._defaults.items():
            if name not in arguments:
                ours[name] = make()
        return self.function(**arguments, **ours)

    def _converted(self, checked: Dict[str, Any]) -> Dict[str, Any]:
        out: Dict[str, Any] = {}
        for name, value in checked.items():
            shape = self._shapes.get(name)
            try:
                out[name] = shape.convert(value) if shape and shape.convert else value
            except Invalid as exc:
                raise exc.under(name) from exc.__cause__
        return out

    def _refuse_ours(self, checked: Dict[str, Any]) -> None:
        # A schema that is open must not let the model hand in our own objects' places.
        problems = [Problem((name,), "is unknown") for name in checked if name in self._injected]
        if problems:
            raise Invalid(*problems)

    def _refusal(self, text: str) -> ToolError:
        return ToolError(f"{self.name} was not called: {text}", tool=self.name)

    def _explained(self, exc: Invalid) -> str:
        said = []
        for problem in exc.problems[:_MOST_PROBLEMS]:
            where = f'argument "{problem.where()}"' if problem.path else "the JSON"
            said.append(f"{where} {problem.text}")
        if len(exc.problems) > _MOST_PROBLEMS:
            said.append(f"and {len(exc.problems) - _MOST_PROBLEMS} more problems")
        return f"{'; '.join(said)}. {self._form()}"

    def _form(self) -> str:
        required = self.parameters.get("required", ())
        names = [
            f'"{name}"' + ("" if name in required else " (optional)")
            for name in list(self.parameters["properties"])[:20]
        ]
        if not names:
            return "Send {}: it takes no arguments."
        return f"Send one JSON object with the keys {', '.join(names)}."


@overload
def tool(
    function: Callable[..., Any],
    *,
    name: Optional[str] = ...,
    description: Optional[str] = ...,
    timeout: Optional[float] = ...,
    strict: bool = ...,
    repeatable: bool = ...,
    alone: bool = ...,
    on_unknown: Optional[str] = ...,
) -> Tool: ...


@overload
def tool(
    function: None = ...,
    *,
    name: Optional[str] = ...,
    description: Optional[str] = ...,
    timeout: Optional[float] = ...,
    strict: bool = ...,
    repeatable: bool = ...,
    alone: bool = ...,
    on_unknown: Optional[str] = ...,
) -> Callable[[Callable[..., Any]], Tool]: ...


def tool(
    function: Optional[Callable[..., Any]] = None,
    *,
    name: Optional[str] = None,
    description: Optional[str] = None,
    timeout: Optional[float] = None,
    strict: bool = False,
    repeatable: bool = False,
    alone: bool = False,
    on_unknown: Optional[str] = None,
) -> Union[Tool, Callable[[Callable[..., Any]], Tool]]:
    """Make a Tool of a function with annotations: `@tool`, or `@tool(timeout=5)`.

    The schema comes from the annotations, the description from the docstring's
    paragraphs before its sections, what is said of the parameters from its Google, NumPy or reST
    section or from `Annotated[..., "text"]`, which wins.  Defaults are shown to
    the model.  A parameter annotated CancelToken or RunContext is filled in by
    the library and not shown.  Methods work bound: `tool(weather.lookup)`.

    Args:
        function: the function; None where the decorator has arguments.
        name: for the model; the function's own if None.
        description: for the model; the docstring's if None.
        timeout: seconds a call may take; None for the agent's setting.
        strict: ask the server to keep to the schema (OpenAI's strict mode).
        repeatable, alone, on_unknown: as `Tool` has them.

    Raises ConfigError, naming the tool and the parameter, for what has no schema.
    Under `python -OO`, where there are no docstrings, a tool without `description`
    is a RuntimeWarning.
    """
    settings: Dict[str, Any] = {
        "timeout": timeout,
        "strict": strict,
        "repeatable": repeatable,
        "alone": alone,
        "on_unknown": on_unknown,
    }
    if function is None:
        return functools.partial(tool, name=name, description=description, **settings)
    if isinstance(function, Tool):
        raise ConfigError(f"{function.name!r} is a tool already")
    named = _name_of(function) if name is None else name
    _check_name(named)
    signature.check_function(function, named)
    read = signature.read(function, named)
    said = _summary(function, named) if description is None else description
    made = Tool(named, said, read.schema, function, **settings)
    made._shapes, made._defaults = read.shapes, read.defaults
    return made


def _summary(function: Callable[..., Any], name: str) -> str:
    said = signature.summary(function)
    if not said and sys.flags.optimize >= 2:
        warnings.warn(
            f"tool {name!r} has no description: Python runs without docstrings (-OO); "
            "give one with @tool(description=...)",
            RuntimeWarning,
            stacklevel=3,
        )
    return said


def as_tool(function: Union[Tool, Callable[..., Any]]) -> Tool:
    """`function` if it is a Tool, else the Tool that `tool(function)` makes; raises ConfigError."""
    return function if isinstance(function, Tool) else tool(function)


def _name_of(function: Any) -> str:
    if not callable(function):
        raise ConfigError(f"a tool is made of a function, not {type(function).__name__}")
    return getattr(function, "__name__", "")


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        reason = "a name has 1 to 64 letters, digits, '_' or '-'"
        raise ConfigError(
            f"tool {name!r}: {reason}; give one with @tool(name=...)", setting="name", reason=reason
        )


def _checked_text(name: str, description: Any) -> str:
    if not isinstance(description, str):
        raise ConfigError(f"tool {name!r}: its description must be a str")
    return description


def _checked_timeout(name: str, timeout: Any) -> Optional[float]:
    checked = checks.seconds("timeout", timeout, optional=True, of=f"tool {name!r}")
    return None if checked is None else float(checked)


def _checked_on_unknown(name: str, word: Optional[str]) -> str:
    if word is None:
        return "suspend"
    chosen: str = checks.one_of("on_unknown", word, _ON_UNKNOWN, of=f"tool {name!r}")
    return chosen


def _checked_schema(name: str, parameters: Any) -> Dict[str, Any]:
    """A copy of the schema, with the keys every server wants."""
    if not isinstance(parameters, Mapping):
        raise ConfigError(f"tool {name!r}: parameters must be a JSON schema, a dict")
    try:
        copied = json.loads(json.dumps(dict(parameters), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as exc:
        raise ConfigError(f"tool {name!r}: its schema is not JSON: {exc}") from None
    if isinstance(copied.get("$ref"), str):  # as pydantic writes a recursive model
        _check_references(name, copied)
        target = resolve(copied, copied.pop("$ref"))
        copied = {**(target if isinstance(target, dict) else {}), **copied}
    schema: Dict[str, Any] = {"type": "object", "properties": {}, **copied}
    if schema["type"] != "object" or not isinstance(schema["properties"], dict):
        raise ConfigError(f"tool {name!r}: its schema must be that of an object")
    if not isinstance(schema.get("required", []), list):
        raise ConfigError(f"tool {name!r}: 'required' must be a list of names")
    _check_references(name, schema)
    return schema


def _check_references(name: str, root: Dict[str, Any]) -> None:
    lost = dangling(root)
    if lost is not None:
        raise ConfigError(
            f"tool {name!r}: its schema has no {lost!r}; only local $refs are followed"
        )


def _strict(name: str, parameters: Dict[str, Any]) -> Dict[str, Any]:
    try:
        return strict_schema(parameters)
    except Undescribable as exc:
        raise ConfigError(f"tool {name!r}: {exc}") from None

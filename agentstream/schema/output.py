"""Output: what an answer is to be, and an answer's text as that.

Pure: how a server is told stands in llm/output, how a run asks again in agent/run.
"""

from __future__ import annotations

import json
import re
import typing
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Set, Tuple

from agentstream import checks
from agentstream.errors import ConfigError
from agentstream.schema.annotations import Undescribable, is_special, is_union, name_of
from agentstream.schema.describe import Shape, shape_of
from agentstream.schema.growing import NOTHING, WRAPPED, GrowingValue
from agentstream.schema.known import Known, known_of
from agentstream.schema.parse import find_json, parse_json
from agentstream.schema.problems import Invalid, Problem
from agentstream.schema.validate import Validator, dangling, resolve, same

__all__ = ["MEANS", "Answer", "Output", "as_output", "said"]

#: How a server is told what an answer is to be.
MEANS = ("auto", "schema", "tool", "words")
_NAME = re.compile(r"[^a-zA-Z0-9_-]+")
_LANGUAGE = re.compile(r"[\w+-]*")
#: What a model thinks before its answer, and its server does not send apart.
_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
_MOST_SAID = 10
_MOST_DEPTH = 32
NoneType = type(None)


class Answer(NamedTuple):
    """An answer's value.

    Attributes:
        value: as the type has it.
        plain: the same in JSON values, as it came, mended.
    """

    value: Any
    plain: Any


class Output:
    """What an answer is to be: a type, and how it is asked for.

    Args:
        type: a dataclass, TypedDict, NamedTuple, pydantic model, Enum, Literal, list,
            Optional or union of such, a plain type; or a JSON schema, a dict.
        means: "schema": the server holds the answer to a JSON schema; "tool": it is
            made to call a tool whose arguments are the answer; "words": the prompt says
            so; "auto": the first of these that the server takes.
        retries: so often a wrong answer is sent back with what is wrong.
        name: how the server calls it; None for the type's own.

    Attributes:
        schema: the JSON schema of what is asked for, an object always.
        wrapped: the value stands in it under "value", since it is no object by itself.

    Raises:
        ConfigError: a setting cannot be used, or the type has no JSON schema.
    """

    def __init__(
        self, type: Any, *, means: str = "auto", retries: int = 1, name: Optional[str] = None
    ) -> None:
        self.type = type
        self.means: str = checks.one_of("means", means, MEANS, of="output")
        self.retries: int = checks.whole("retries", retries, 0, of="output")
        given = isinstance(type, Mapping)
        own = type.get("title") if given else _title(type)
        named = checks.text("name", name, of="output") if name is not None else str(own or "")
        self.name = _NAME.sub("_", named).strip("_")[:64] or "answer"
        shape = Shape(_given(type)) if given else _described(type)
        self._inner, self._convert = shape.schema, shape.convert
        self.wrapped = not _is_object(shape.schema)
        self.schema: Dict[str, Any] = _wrapped(shape.schema) if self.wrapped else shape.schema
        self._closed = not given
        self._known: Optional[Known] = None

    def __repr__(self) -> str:
        return f"<Output {self.name}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Output) and (
            (self.means, self.retries, self.name) == (other.means, other.retries, other.name)
            and (self.type is other.type or bool(self.type == other.type))
        )

    def __hash__(self) -> int:
        return hash((self.means, self.retries, self.name))

    # --- what it is to be -------------------------------------------------------------------

    def words(self) -> str:
        """What a model is told to answer."""
        schema = json.dumps(self.schema, ensure_ascii=False)
        return (
            "Answer with JSON and nothing else: no words around it, no code fence. "
            f"It is one object that fits this JSON schema:\n{schema}"
        )

    def correction(self, wrong: Invalid) -> str:
        """What a model is told of a wrong answer; `wrong` is what `read` raised."""
        problems = wrong.problems
        if self.wrapped and wrong.value is not NOTHING:
            problems = wrong.under(WRAPPED).problems
        lines = [f"- {text}" for text in said(problems)]
        if wrong.value is NOTHING:
            last = self.words()
        else:
            last = "Answer again, with the whole JSON and nothing else."
        return "\n".join(["Your answer cannot be used:", *lines, "", last])

    # --- what it is -------------------------------------------------------------------------

    def read(self, text: str, *, cut: bool = False) -> Answer:
        """The value that an answer's text holds.

        Mended is what can only be meant one way: a fence or words around the JSON, line
        breaks within its texts, a value without its {"value": ...}, and what `Tool.bind`
        mends.

        Args:
            text: the answer.
            cut: it broke off; then only what has its closing bracket counts.

        Raises:
            Invalid: it holds none; `value` is the JSON as it came, `NOTHING` for none.
        """
        try:
            candidates = self._candidates(text, cut=cut)
        except ValueError as exc:
            raise _with_value(Invalid.because(f"cannot be read: {exc}"), NOTHING) from None
        answers: List[Answer] = []
        failures: List[Invalid] = []
        for candidate in candidates:
            try:
                answers.append(self._answer(candidate, len(text)))
            except Invalid as exc:
                failures.append(_with_value(exc, candidate))
        if answers and all(same(answers[0].plain, other.plain) for other in answers[1:]):
            return answers[0]
        if answers:
            raise _with_value(Invalid.because("holds several values; give one"), NOTHING)
        if not failures:
            raise _with_value(Invalid.because("holds no JSON"), NOTHING)
        try:
            raise failures[-1]
        finally:
            failures.clear()  # no cycle through its traceback

    def growing(self) -> GrowingValue:
        """The value of an answer that is still arriving."""
        if self._known is None:
            self._known = known_of(self._inner, closed=self._closed)
        if not self.wrapped:
            return GrowingValue(self._known)
        forms = _kinds(self._inner)
        bare = "".join(mark for mark, kind in (("{", "object"), ("[", "array")) if kind in forms)
        return GrowingValue(self._known, wrapped=True, bare=bare)

    def _candidates(self, text: str, *, cut: bool) -> List[Any]:
        """The JSON values that `text` may be; raises ValueError if it holds a broken one."""
        stripped = _without_thought(text.strip("\ufeff \t\r\n"))
        fenced = _fenced(stripped)
        for whole in (stripped, fenced):
            try:
                value = parse_json(whole)
            except ValueError:
                continue
            return [] if cut and not isinstance(value, (dict, list)) else [value]
        found = find_json(stripped)
        words = fenced or stripped
        if not found and not cut and words in _choices(self._inner):
            return [words]
        return found

    def _answer(self, candidate: Any, size: int) -> Answer:
        if self.wrapped and isinstance(candidate, dict) and set(candidate) == {WRAPPED}:
            try:
                return self._checked(candidate[WRAPPED], size)
            except Invalid:
                if "object" not in _kinds(self._inner):
                    raise
                try:
                    return self._checked(candidate, size)
                except Invalid:
                    pass
                raise
        return self._checked(candidate, size)

    def _checked(self, value: Any, size: int) -> Answer:
        plain = Validator(self._inner, steps=10_000 + 50 * size).check(value)
        return Answer(self._convert(plain) if self._convert else plain, plain)


def as_output(given: Any) -> Output:
    """`given` if it is an `Output`, else the one of that type; raises ConfigError."""
    return given if isinstance(given, Output) else Output(given)


def said(problems: Tuple[Problem, ...]) -> List[str]:
    """Problems in words, each with its place, the first ten of them."""
    found = [f"{one.where() or 'the answer'} {one.text}" for one in problems[:_MOST_SAID]]
    if len(problems) > _MOST_SAID:
        found.append(f"and {len(problems) - _MOST_SAID} more problems")
    return found


def _fenced(text: str) -> str:
    """What stands in the code fence that `text` is; "" if it is none."""
    if len(text) < 6 or not (text.startswith("```") and text.endswith("```")):
        return ""
    first, line_break, rest = text[3:-3].partition("\n")
    if line_break and _LANGUAGE.fullmatch(first.strip()):
        return rest.strip()
    return text[3:-3].strip()


def _without_thought(text: str) -> str:
    thought = _THOUGHT.match(text)
    return text if thought is None else text[thought.end() :].strip()


def _with_value(exc: Invalid, value: Any) -> Invalid:
    exc.value = value
    return exc


def _title(type: Any) -> str:
    """A type's name, of a generic one with those within it."""
    origin, within = typing.get_origin(type), typing.get_args(type)
    if origin is typing.Annotated:
        return _title(within[0])
    if is_union(type):
        return " or ".join("None" if one is NoneType else _title(one) for one in within)
    if is_special(origin, "Literal"):
        return "Literal"
    if origin is None:
        return name_of(type)
    parts = [_title(one) for one in within if one is not Ellipsis]
    return " of ".join([name_of(origin), " and ".join(parts)] if parts else [name_of(origin)])


# --- schemas --------------------------------------------------------------------------------


def _described(type: Any) -> Shape:
    try:
        return shape_of(type)
    except Undescribable as exc:
        raise ConfigError.about("output", str(exc)) from exc.__cause__


def _given(schema: Mapping[str, Any]) -> Dict[str, Any]:
    """A copy of a JSON schema."""
    try:
        copied: Dict[str, Any] = json.loads(json.dumps(dict(schema), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as exc:
        raise ConfigError.about("output", f"is no JSON schema: {exc}") from None
    lost = dangling(copied)
    if lost is not None:
        reason = f"has no {lost!r}; only local $refs are followed"
        raise ConfigError.about("output", reason)
    if isinstance(copied.get("$ref"), str):  # as pydantic writes a recursive model
        target = resolve(copied, copied.pop("$ref"))
        copied = {**(target if isinstance(target, dict) else {}), **copied}
    if "properties" in copied:
        copied.setdefault("type", "object")
    return copied


def _is_object(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "object"


def _wrapped(schema: Mapping[str, Any]) -> Dict[str, Any]:
    """The schema of an object that holds the value; references follow it to its new place."""
    return {
        "type": "object",
        "properties": {WRAPPED: _moved(schema)},
        "required": [WRAPPED],
        "additionalProperties": False,
    }


def _moved(part: Any) -> Any:
    if isinstance(part, list):
        return [_moved(item) for item in part]
    if not isinstance(part, Mapping):
        return part
    out = {key: _moved(item) for key, item in part.items()}
    reference = out.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        out["$ref"] = f"#/properties/{WRAPPED}{reference[1:]}"
    return out


def _forms(schema: Any, root: Any, depth: int = 0) -> List[Mapping[str, Any]]:
    """The schemas one of which the value follows, without references and choices."""
    if not isinstance(schema, Mapping) or depth > _MOST_DEPTH:
        return []
    reference = schema.get("$ref")
    if isinstance(reference, str):
        return _forms(resolve(root, reference), root, depth + 1)
    parts = [part for word in ("anyOf", "oneOf", "allOf") for part in schema.get(word) or ()]
    if not parts:
        return [schema]
    return [form for part in parts for form in _forms(part, root, depth + 1)]


def _kinds(schema: Mapping[str, Any]) -> Set[str]:
    """The JSON types that the value may have; both containers where nothing is said."""
    kinds: Set[str] = set()
    for form in _forms(schema, schema):
        said = form.get("type")
        if isinstance(said, (str, list)):
            kinds.update([said] if isinstance(said, str) else said)
        elif "enum" not in form and "const" not in form:
            kinds.update(("object", "array"))
    return kinds


def _choices(schema: Mapping[str, Any]) -> List[Any]:
    """The values between which a schema leaves the choice; none if it leaves more."""
    found: List[Any] = []
    for form in _forms(schema, schema):
        if "const" in form:
            found.append(form["const"])
        elif isinstance(form.get("enum"), list):
            found += form["enum"]
        elif form.get("type") != "null":
            return []
    return found

"""Instances of classes as a name and attributes, and back: what codec.py keeps of them.

A class is named `module:qualname`, and must be found again there.  An instance is made empty and
gets the attributes that it had: no constructor of the user's, no property and no validator is
called.
"""

from __future__ import annotations

import enum
import importlib
import sys
import types
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from agentstream.errors import AgentStreamError, LogError

__all__ = ["NotKept", "State", "article", "find", "form_of", "named", "restore", "state_of"]

#: An instance's attributes: those of its class's fields, the others, the fields without a value.
State = Tuple[Dict[str, Any], Dict[str, Any], List[str]]


class NotKept(AgentStreamError, TypeError):
    """A value that no checkpoint can hold.

    Attributes:
        path: where it stands, "output['a'][3]".
        what: what stands there, "a lock".
    """

    def __init__(self, what: str, path: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.path = path

    def within(self, place: str) -> NotKept:
        """The error, its path beginning further out."""
        self.path = place + self.path
        return self

    def __str__(self) -> str:
        return f"{self.path}: {self.what}" if self.path else self.what


def article(kind: type) -> str:
    """The class's name behind "a" or "an"."""
    return f"{'an' if kind.__name__[:1].lower() in 'aeio' else 'a'} {kind.__name__}"


def form_of(kind: type) -> str:
    """What the class is: "enum", "flag", "named" (tuple), "dataclass" or "model"; "" for none."""
    if issubclass(kind, enum.Enum):
        return "flag" if issubclass(kind, enum.Flag) else "enum"
    if issubclass(kind, tuple):
        return "named" if hasattr(kind, "_field_defaults") else ""
    if hasattr(kind, "__dataclass_fields__"):
        return "dataclass"
    pydantic = sys.modules.get("pydantic")
    return "model" if pydantic is not None and issubclass(kind, pydantic.BaseModel) else ""


def named(kind: type) -> str:
    """The name under which `find` finds the class.

    Raises:
        NotKept: it does not.
    """
    name = f"{kind.__module__}:{kind.__qualname__}"
    if _lookup(name) is not kind:
        raise NotKept(
            f"{article(kind)}, and {name} is not that class: define it at the top of a module"
        )
    return name


def find(name: str, form: str) -> Any:
    """The class of that name and form.

    A module that is not imported yet is, if its package was: a checkpoint brings nothing into a
    program that has no part in it.

    Raises:
        LogError: it is not there, or is something else now.
    """
    module = name.partition(":")[0]
    if module not in sys.modules and module.partition(".")[0] in sys.modules:
        try:
            importlib.import_module(module)
        except ImportError:
            pass  # said below
    found = _lookup(name)
    if not isinstance(found, type) or form_of(found) != form:
        known = "no class that can be kept" if isinstance(found, type) else "not there"
        raise LogError(
            f"a checkpoint has a value of the class {name[:200]}, which is {known} in this"
            " process: is its module imported, and does it still have that name?"
        )
    return found


def _lookup(name: str) -> Any:
    """What stands there in a module that is imported; None for nothing."""
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        if not isinstance(found, (types.ModuleType, type)):
            return None
        found = vars(found).get(part)
    return found


def _defaults(kind: Any, form: str) -> Dict[str, Optional[Callable[[], Any]]]:
    """The class's fields, each with what makes its default, or None."""
    if form == "named":
        return {name: _giving(kind._field_defaults, name) for name in kind._fields}
    if form == "model":
        return {
            name: None if field.is_required() else _default_of_model(field)
            for name, field in kind.model_fields.items()
        }
    import dataclasses  # noqa: PLC0415 - it brings inspect; who has a dataclass has paid for it

    missing = dataclasses.MISSING
    found: Dict[str, Optional[Callable[[], Any]]] = {}
    for field in dataclasses.fields(kind):
        plain = {} if field.default is missing else {field.name: field.default}
        made = field.default_factory
        found[field.name] = _giving(plain, field.name) if made is missing else made
    return found


def _giving(values: Mapping[str, Any], name: str) -> Optional[Callable[[], Any]]:
    return (lambda: values[name]) if name in values else None


def _default_of_model(field: Any) -> Callable[[], Any]:
    return lambda: field.get_default(call_default_factory=True)


def _slots(kind: type) -> Dict[str, Any]:
    return {
        name: slot
        for base in reversed(kind.__mro__)
        for name, slot in vars(base).items()
        if type(slot) is types.MemberDescriptorType
    }


def _empty(kind: Any) -> Any:
    """An instance without attributes; None where `object` cannot make one."""
    try:
        return object.__new__(kind)
    except TypeError:
        return None


def state_of(value: Any, form: str) -> State:
    """The attributes of an instance of such a class.

    Raises:
        NotKept: it is more than its attributes, as that of a subclass of dict is.
    """
    kind = type(value)
    own = dict(vars(value)) if hasattr(value, "__dict__") else {}
    if form == "named":
        return dict(zip(kind._fields, value)), own, []
    if _empty(kind) is None:
        raise NotKept(f"{article(kind)}, which is more than its fields")
    for name, slot in _slots(kind).items():
        try:
            own[name] = slot.__get__(value)
        except AttributeError:
            pass  # it has no value
    fields = _defaults(kind, form)
    unset = [name for name in fields if name not in own]
    return {name: own.pop(name) for name in fields if name in own}, own, unset


def restore(name: str, form: str, state: State) -> Any:
    """The instance that `state_of` gave the attributes of; fields that are new get their default.

    Raises:
        LogError: the class is not there, or is something else now, or new fields have no default.
    """
    kind = find(name, form)
    fields, more, unset = state
    defaults = _defaults(kind, form)
    differing = [field for field in [*fields, *unset] if field not in defaults]
    values: Dict[str, Any] = {}
    for field, default in defaults.items():
        if field in fields:
            values[field] = fields[field]
        elif field not in unset:
            if default is None:
                differing.append(field)
            else:
                values[field] = default()
    if differing:
        raise LogError(
            f"a checkpoint has a value of the class {name}, whose fields differ now:"
            f" {', '.join(differing)}"
        )
    if form == "named":
        made, values = tuple.__new__(kind, values.values()), {}
    else:
        made = _empty(kind)
    slots = _slots(kind)
    for attribute, value in {**values, **more}.items():
        if attribute in slots:
            slots[attribute].__set__(made, value)
        else:
            vars(made)[attribute] = value
    return made

"""Frozen: what the settings and requests are made of, values that cannot be changed.

A frozen dataclass would do, were it not for its price: `dataclasses` and its
generated code would be half of what `import agentstream` costs beyond requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict, NoReturn, Tuple, Type, TypeVar

from agentstream import checks

__all__ = ["Frozen"]

T = TypeVar("T", bound="Frozen")

if TYPE_CHECKING:
    from inspect import Signature

    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Callable[[T], T]:
        return lambda kind: kind


class _Signature:
    """What `inspect.signature` says of a Frozen class: its fields and their defaults.

    Made when somebody asks: `inspect` is too dear to import for nobody.
    """

    def __get__(self, value: object, kind: Type[Frozen]) -> Signature:
        from inspect import Parameter, Signature  # noqa: PLC0415

        return Signature(
            [
                Parameter(
                    name,
                    Parameter.POSITIONAL_OR_KEYWORD,
                    default=getattr(kind, name, Parameter.empty),
                    annotation=kind.__annotations__[name],
                )
                for name in kind._fields
            ]
        )


@dataclass_transform(frozen_default=True)
class Frozen:
    """Fields by annotation, with defaults, as in a frozen dataclass; equal if they all are.

    A default that is a dict is copied for each value.  `__post_init__` checks them.
    """

    _fields: Tuple[str, ...] = ()
    __signature__ = _Signature()

    def __init_subclass__(cls) -> None:
        cls._fields = tuple(cls.__annotations__)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        names = self._fields
        given: Dict[str, Any] = dict(zip(names, args))
        unknown = [name for name in kwargs if name in given or name not in names]
        if unknown and unknown[0] not in names:
            raise self._misnamed(unknown[0])
        if unknown or len(args) > len(names):
            raise TypeError(f"{type(self).__name__}() takes {', '.join(names)}, each once")
        given.update(kwargs)
        values = self.__dict__
        for name in names:
            if name in given:
                values[name] = given[name]
            elif hasattr(type(self), name):
                default = getattr(type(self), name)
                values[name] = dict(default) if isinstance(default, dict) else default
            else:
                raise TypeError(f"{type(self).__name__}() needs {name}=")
        self.__post_init__()

    def __post_init__(self) -> None:
        pass

    def _misnamed(self, name: str) -> TypeError:
        """The error of a keyword that is no field."""
        there_is = f"it takes {', '.join(self._fields)}"
        return checks.misnamed(type(self).__name__, name, self._fields, {}, there_is)

    def replace(self: T, **changes: Any) -> T:
        """The same value but for these fields."""
        return type(self)(**{**self.__dict__, **changes})

    __replace__ = replace  # for copy.replace, from Python 3.13 on

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__.values()))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__dict__.items())
        return f"{type(self).__name__}({shown})"

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"a {type(self).__name__} cannot be changed: use replace({name}=...)")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a {type(self).__name__} cannot be changed")

"""What is known for as long as somebody else holds it, and goes without a line of Python.

The containers of `weakref` run a function of their own as an object goes.  A signal handler
may come in the middle of that, and what it raises there, Ctrl-C or a SystemExit, Python prints
and forgets.  Here a dead entry just stays until it is in the way.
"""

from __future__ import annotations

import weakref
from typing import Any, Dict, Generic, Hashable, Iterator, List, Optional, TypeVar

__all__ = ["WeakObjects", "WeakValues"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
#: So many entries are not looked through for dead ones.
_FEW = 64


class WeakValues(Generic[K, V]):
    """A dict whose values go when nobody else holds them.  Its caller sees to locks."""

    def __init__(self) -> None:
        self._entries: Dict[K, weakref.ref[Any]] = {}
        self._most = _FEW

    def __len__(self) -> int:
        return len(self.values())

    def __setitem__(self, key: K, value: V) -> None:
        self._entries[key] = weakref.ref(value)
        if len(self._entries) > self._most:
            self._entries = {k: entry for k, entry in self._entries.items() if entry() is not None}
            self._most = max(_FEW, 2 * len(self._entries))

    def get(self, key: K) -> Optional[V]:
        """The value; None if there is none, or none any more."""
        entry = self._entries.get(key)
        return None if entry is None else entry()

    def pop(self, key: K) -> None:
        """Forget a key, if it is there."""
        self._entries.pop(key, None)

    def values(self) -> List[V]:
        """Those that somebody holds."""
        found = [entry() for entry in list(self._entries.values())]
        return [value for value in found if value is not None]


class WeakObjects:
    """A set of objects, each for as long as somebody else holds it; equal ones are two."""

    def __init__(self) -> None:
        self._by_id: WeakValues[int, Any] = WeakValues()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._by_id.values())

    def add(self, thing: object) -> None:
        """Have it in the set, once."""
        self._by_id[id(thing)] = thing

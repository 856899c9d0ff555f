"""What a schema knows of a value's keys, and a value without those it does not know (pure)."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Mapping, Optional

from agentstream.schema.validate import resolve

__all__ = ["ANYTHING", "Known", "known_of"]

_FORMS = ("anyOf", "oneOf", "allOf")


class Known:
    """The keys of an object that are known, and what is known of their values.

    Attributes:
        keys: by name; None where every key is.
        others: of the keys besides them, where those may be, or of all.
        items: of an array's items.
        bare: nothing within is ever taken away.
    """

    __slots__ = ("bare", "items", "keys", "others")

    def __init__(self) -> None:
        self.keys: Optional[Dict[str, Known]] = None
        self.others: Known = self
        self.items: Known = self
        self.bare = True

    def under(self, key: str) -> Optional[Known]:
        """What is known of the value of `key`; None if the key is unknown."""
        return self.others if self.keys is None else self.keys.get(key)

    def pruned(self, value: Any) -> Any:
        """`value` without unknown keys: itself, if it has none."""
        if self.bare:
            return value
        if value.__class__ is dict:
            keys = self.keys
            if keys is None:
                return {key: self.others.pruned(item) for key, item in value.items()}
            return {key: keys[key].pruned(item) for key, item in value.items() if key in keys}
        if value.__class__ is list and not self.items.bare:
            pruned = self.items.pruned
            return [pruned(item) for item in value]
        return value


#: Every key of every object is known.
ANYTHING = Known()


def known_of(schema: Mapping[str, Any], *, closed: bool) -> Known:
    """What `schema` knows.

    Args:
        schema: of the whole value; `$ref` is looked up in it.
        closed: an object whose schema names keys, and says nothing of others, has no others.
    """
    return _Reader(schema, closed).read([schema])


class _Reader:
    def __init__(self, root: Any, closed: bool) -> None:
        self._root = root
        self._closed = closed
        self._made: Dict[Any, Known] = {}

    def read(self, schemas: Iterable[Any]) -> Known:
        """What several schemas of one value know together."""
        forms = self._forms(schemas)
        key = frozenset(map(id, forms))
        if key in self._made:
            return self._made[key]  # within itself, perhaps
        if not forms or any(form is True or not form for form in forms):
            return ANYTHING
        known = self._made[key] = Known()
        known.bare = False  # as far as is known to who is within it
        objects = [form for form in forms if _is_object(form)]
        keys: Dict[str, List[Any]] = {}
        for form in objects:
            for name, part in (form.get("properties") or {}).items():
                keys.setdefault(name, []).append(part)
        others = [form.get("additionalProperties") for form in objects if self._is_open(form)]
        if objects and not others:
            known.keys = {name: self.read(parts) for name, parts in keys.items()}
        elif others and not keys:
            known.others = self.read([True if part is None else part for part in others])
        elif others:
            known.others = ANYTHING
        items = [part for form in forms for part in _items(form)]
        known.items = self.read(items) if items else ANYTHING
        others_bare = known.others is known or known.others.bare
        known.bare = known.keys is None and known.items.bare and others_bare
        return known

    def _forms(self, schemas: Iterable[Any]) -> List[Any]:
        """The schemas that a value may follow, without references and choices between them."""
        left, found, seen = list(schemas), [], set()
        while left:
            schema = left.pop(0)
            if id(schema) in seen:
                continue
            seen.add(id(schema))
            if not isinstance(schema, Mapping):
                found.append(schema)
                continue
            parts = [part for word in _FORMS for part in schema.get(word) or ()]
            if isinstance(schema.get("$ref"), str):
                parts.append(self._target(schema["$ref"]))
            left[:0] = parts
            if not parts or "properties" in schema or "items" in schema:
                found.append(schema)
        return found

    def _target(self, reference: str) -> Any:
        try:
            return resolve(self._root, reference)
        except LookupError:
            return True

    def _is_open(self, schema: Mapping[str, Any]) -> bool:
        others = schema.get("additionalProperties")
        if others is None:
            return not (self._closed and "properties" in schema)
        return others is not False


def _is_object(schema: Any) -> bool:
    return isinstance(schema, Mapping) and (
        schema.get("type") == "object" or "properties" in schema or "additionalProperties" in schema
    )


def _items(schema: Any) -> List[Any]:
    if not isinstance(schema, Mapping):
        return []
    items = schema.get("items")
    parts = list(schema.get("prefixItems") or ())
    parts += items if isinstance(items, list) else [] if items is None else [items]
    return parts

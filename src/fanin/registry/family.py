"""One kind of named objects, such as the initializers: what an identifier means, and what JSON says of an object."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar, cast

from fanin.errors import nearest
from fanin.registry.builtin import Place, enter, place_of
from fanin.registry.names import snake_case
from fanin.registry.own import custom_object_scope, get_registered_object
from fanin.registry.reading import deserialize
from fanin.registry.writing import serialize

T = TypeVar("T")
Named = TypeVar("Named")


class Family(Generic[T]):
    """One kind of named objects: a table of names, and the rules by which an identifier becomes an object.

    Args:
        kind: what one of them is called in messages: "initializer".
        module: the Keras module its JSON names: "keras.initializers".
        base: the class that instances must have; None where any callable will do.
    """

    def __init__(self, kind: str, module: str, base: type | None = None):
        self.kind = kind
        self.module = module
        self.base = base
        self._table: dict[str, Any] = {}

    def add(self, obj: Named, *aliases: str, module: str | None = None) -> Named:
        """Enter a class or a function under its name, and under `aliases`; a class under its snake_case too, unless
        that is the name of a function.

        `module` is the Keras module that its JSON names, if not the family's.
        """
        name = cast(Any, obj).__name__
        self._table[name] = obj
        if inspect.isclass(obj) and not inspect.isfunction(self._table.get(snake_case(name))):
            self._table[snake_case(name)] = obj
        for alias in aliases:
            self._table[alias] = obj
        enter(obj, module or self.module, name)
        return obj

    def entry(self, *aliases: str, module: str | None = None) -> Callable[[Named], Named]:
        """`add` as a decorator with aliases."""
        return lambda obj: self.add(obj, *aliases, module=module)

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._table)

    def lookup(self, name: str) -> Any:
        """The class or function under `name`: the user's own, then the table. Else a ValueError with near names."""
        found = get_registered_object(name)
        if found is None:
            found = self._table.get(name)
        if found is None:
            raise ValueError(f"Unknown {self.kind} {name!r}.{nearest(name, self._table)}")
        return found

    def get(self, identifier: Any) -> T | None:
        """The object that `identifier` means: None, a name, a class, an instance, a config dict or a callable.

        Raises ValueError for an unknown name, TypeError for what cannot be an object of this family.
        """
        if identifier is None:
            return None
        found = identifier
        if isinstance(identifier, str):
            found = self.lookup(identifier)
        elif isinstance(identifier, Mapping):
            found = self.deserialize(identifier)
        if inspect.isclass(found):
            found = found()
        return self.check(found, identifier)

    def check(self, found: Any, identifier: Any) -> T:
        """`found` if it can serve in this family, else a TypeError that shows the identifier."""
        if callable(found) or (self.base is not None and isinstance(found, self.base)):
            return cast(T, found)
        raise TypeError(
            f"Could not interpret {self.kind} identifier {identifier!r}: expected a name, class, config or callable."
        )

    def serialize(self, obj: Any) -> Any:
        """The JSON of one of this family's objects: a plain name for a built-in function, else Keras's object form."""
        if obj is None:
            return None
        place = None if inspect.isclass(obj) else place_of(obj)
        return place[1] if place is not None and place[0] == self.module else serialize(obj)

    def deserialize(self, config: Any, custom_objects: Mapping[str, Any] | None = None) -> T | None:
        """The object that `serialize` described."""
        with custom_object_scope(custom_objects):
            if config is None:
                return None
            if isinstance(config, str):
                return self.get(config)
            return self.check(deserialize(self.with_module(config)), config)

    def with_module(self, config: Any) -> Any:
        """A config in Keras 2's form, which names no module, in Keras 3's; any other as it is."""
        if not isinstance(config, Mapping) or "module" in config or config.get("class_name") not in self._table:
            return config
        module, name = cast(Place, place_of(self._table[config["class_name"]]))
        own = name if get_registered_object(name) is not None else None  # which stood for Keras's, too
        return {"registered_name": own, **config, "module": module, "class_name": name}

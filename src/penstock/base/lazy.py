"""Lazy imports and lazy objects, for what most processes never use.

    if TYPE_CHECKING:
        from cryptography import x509
    else:
        x509 = lazy_import("cryptography.x509")

Type checkers and import-linter see an ordinary import. What a start must not import is listed in
tests/integration/test_testing_broker.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar, cast

T = TypeVar("T")

_lazy_names: set[str] = set()
"""Names of modules that are, or will be, imported lazily."""


class _LazyModule(ModuleType):
    def __getattr__(self, name: str) -> Any:
        found = getattr(import_module(self.__name__), name)
        setattr(self, name, found)  # Found here the next time.
        return found


def lazy_import(name: str) -> ModuleType:
    """A module that is imported when one of its attributes is first used."""
    _lazy_names.add(name)
    return _LazyModule(name)


def expect_imports(*names: str) -> None:
    """Add modules to `pending_imports` that are imported within functions which this process will call."""
    _lazy_names.update(names)


def pending_imports() -> list[str]:
    """Modules that will be imported when one of their attributes, or a function that needs them, is first used."""
    return sorted(name for name in _lazy_names if name not in sys.modules)


class _LazyObject:
    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make, self._made = make, None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def method(*args: Any, **kwargs: Any) -> Any:
            if self._made is None:
                self._made = self._make()
            return getattr(self._made, name)(*args, **kwargs)

        return method


def lazy_object(make: Callable[[], T]) -> T:
    """An object that is made when one of its methods is first called. Methods are all it has; use it on one thread."""
    return cast("T", _LazyObject(make))

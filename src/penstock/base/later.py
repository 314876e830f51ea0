"""Lazy imports and lazy objects, for what most processes never use.

    if TYPE_CHECKING:
        from cryptography import x509
    else:
        x509 = later("cryptography.x509")

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


_named: set[str] = set()


class _Later(ModuleType):
    def __getattr__(self, name: str) -> Any:
        found = getattr(import_module(self.__name__), name)
        setattr(self, name, found)  # Found here the next time.
        return found


def later(name: str) -> ModuleType:
    """A module that is imported when one of its attributes is first used."""
    _named.add(name)
    return _Later(name)


def will_be_imported(*names: str) -> None:
    """Say of modules that functions import which this process is going to call."""
    _named.update(names)


def not_yet_imported() -> list[str]:
    """Modules that will be imported when one of their attributes, or a function that needs them, is first used."""
    return sorted(name for name in _named if name not in sys.modules)


class _Late:
    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make, self._made = make, None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def method(*args: Any, **kwargs: Any) -> Any:
            if self._made is None:
                self._made = self._make()
            return getattr(self._made, name)(*args, **kwargs)

        return method


def made_late(make: Callable[[], T]) -> T:
    """An object that is made when one of its methods is first called. Methods are all it has; use it on one thread."""
    return cast("T", _Late(make))

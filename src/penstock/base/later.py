"""What most processes have no use for: modules that are imported, and objects that are made, when they are first used.

    if TYPE_CHECKING:
        from cryptography import x509
    else:
        x509 = later("cryptography.x509")

Type checkers, and the contract that arrows point down, see an ordinary import. What a start has to do without is listed
in tests/integration/test_testing_broker.py.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar, cast

T = TypeVar("T")


class _Later(ModuleType):
    def __getattr__(self, name: str) -> Any:
        found = getattr(import_module(self.__name__), name)
        setattr(self, name, found)  # The next one finds it here.
        return found


def later(name: str) -> ModuleType:
    """A module that is imported when something of it is asked for."""
    return _Later(name)


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
    """An object that is made when one of its methods is called, all that may be done with it; on one thread."""
    return cast("T", _Late(make))

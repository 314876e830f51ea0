"""Modules that most processes have no use for, imported by whoever first uses something of them.

    if TYPE_CHECKING:
        from cryptography import x509
    else:
        x509 = later("cryptography.x509")

Type checkers, and the contract that arrows point down, see an ordinary import. Which libraries a start has to do
without is listed in tests/integration/test_testing_broker.py.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any


class _Later(ModuleType):
    def __getattr__(self, name: str) -> Any:
        found = getattr(import_module(self.__name__), name)
        setattr(self, name, found)  # The next one finds it here.
        return found


def later(name: str) -> ModuleType:
    """A module that is imported when something of it is asked for."""
    return _Later(name)

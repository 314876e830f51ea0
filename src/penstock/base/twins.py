"""Compiled twins of hot functions: the same function in C, if there was a C compiler when Penstock was installed.

A function, or a class, that has a twin is marked with `twinned`. It is the reference, and everything works with it.
The twin (`_twin.pyx`, see docs/decisions/0015-compiled-twin.md) has a function of the same name, which replaces it when
the module is imported. `reference` returns the Python function, for tests that compare the two. With `PENSTOCK_PURE`
set, no compiled function is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
SWITCH = "PENSTOCK_PURE"
_NAME = "penstock._twin"
_SOURCE = Path(__file__).parents[1] / "_twin.pyx"

_references: dict[Callable[..., Any], Callable[..., Any]] = {}


def _load() -> tuple[ModuleType | None, str]:
    """The compiled module, or why there is none."""
    if os.environ.get(SWITCH):
        return None, f"switched off by {SWITCH}"
    try:
        module = import_module(_NAME)
    except ImportError:
        return None, "not built: that takes a C compiler and Python's headers"
    built = Path(module.__file__ or "")
    if _SOURCE.exists() and _SOURCE.stat().st_mtime > built.stat().st_mtime:
        return None, "older than its source: run make install"
    return module, ""


_twin, _reason = _load()


def in_use() -> bool:
    """Whether compiled functions are used."""
    return _twin is not None


def why_not() -> str:
    """Why no compiled functions are used; empty if they are."""
    return _reason


def twinned(function: F) -> F:
    """The compiled function of that name, or the function itself."""
    twin = getattr(_twin, function.__name__, None)
    if twin is None:
        return function
    _references[twin] = function
    found: F = twin
    return found


def reference(function: F) -> F:
    """The Python function that a compiled one replaces; any other function is its own reference."""
    found: F = _references.get(function, function)  # type: ignore[assignment]  # it has the same signature
    return found

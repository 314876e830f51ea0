"""Lazy imports and lazily created objects."""

from __future__ import annotations

import sys

import pytest

from penstock.base.lazy import lazy_import, lazy_object


def test_a_module_is_imported_when_an_attribute_is_first_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "this", raising=False)
    monkeypatch.setattr("builtins.print", lambda *_: None)  # It has something to say.
    poem = lazy_import("this")
    assert "this" not in sys.modules
    assert poem.d["a"] == "n"
    assert "this" in sys.modules
    assert vars(poem)["d"] is sys.modules["this"].d


def test_a_missing_module_or_attribute_raises_at_first_use() -> None:
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = lazy_import("json").nothing_of_the_kind
    with pytest.raises(ModuleNotFoundError):
        _ = lazy_import("penstock.nowhere").anything


def test_an_object_is_made_once_by_the_first_call() -> None:
    made: list[list[int]] = []

    def make() -> list[int]:
        made.append([])
        return made[-1]

    numbers = lazy_object(make)
    append, pop = numbers.append, numbers.pop
    assert made == []
    append(1)
    numbers.insert(0, 2)
    assert made == [[2, 1]]
    assert pop(0) == 2
    assert made == [[1]]


def test_an_object_that_cannot_be_made_is_tried_again() -> None:
    tries = iter([OSError("not now"), ["made"]])

    def make() -> list[str]:
        found = next(tries)
        if isinstance(found, OSError):
            raise found
        return found

    words = lazy_object(make)
    with pytest.raises(OSError, match="not now"):
        words.copy()
    assert words.copy() == ["made"]

"""Lazy imports and lazily created objects."""

from __future__ import annotations

import sys

import pytest

from penstock.base.later import later, made_late


def test_a_module_is_imported_when_something_of_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "this", raising=False)
    monkeypatch.setattr("builtins.print", lambda *_: None)  # It has something to say.
    poem = later("this")
    assert "this" not in sys.modules
    assert poem.d["a"] == "n"
    assert "this" in sys.modules
    assert vars(poem)["d"] is sys.modules["this"].d


def test_what_is_not_there_is_missed_when_it_is_asked_for() -> None:
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = later("json").nothing_of_the_kind
    with pytest.raises(ModuleNotFoundError):
        _ = later("penstock.nowhere").anything


def test_an_object_is_made_once_by_the_first_call() -> None:
    made: list[list[int]] = []

    def make() -> list[int]:
        made.append([])
        return made[-1]

    numbers = made_late(make)
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

    words = made_late(make)
    with pytest.raises(OSError, match="not now"):
        words.copy()
    assert words.copy() == ["made"]

"""Modules that are imported by whoever first uses something of them."""

from __future__ import annotations

import sys

import pytest

from penstock.base.later import later


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

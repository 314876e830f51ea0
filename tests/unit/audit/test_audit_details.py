"""Details that are too long: what is left out, what is cut, and that it is said."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.audit.details import DETAILS_MAX, LISTED_MAX, shortened

FACE = "😀"  # One character, four bytes, twelve characters of JSON.


def length(value: Any) -> int:
    return len(json.dumps(value))


@pytest.mark.parametrize(
    "details",
    [{}, {"a": 1, "b": [], "c": {}}, {"names": ["x" * 30] * LISTED_MAX}, {"a": None, "b": {"c": [{"d": 1.5}]}}],
)
def test_what_is_short_stays_as_it_is(details: Any) -> None:
    assert shortened(details) == details


def test_elements_that_do_not_fit_are_left_out_whole() -> None:
    told = shortened({"names": [f"{number:03}" + "x" * 97 for number in range(LISTED_MAX)], "count": 50})
    assert list(told) == ["names", "count", "shortened"]
    assert (told["count"], told["shortened"]) == (50, True)
    assert told["names"] == [f"{number:03}" + "x" * 97 for number in range(19)]


def test_lists_and_mappings_have_so_many_elements() -> None:
    assert shortened({"n": list(range(LISTED_MAX + 1))}) == {"n": list(range(LISTED_MAX)), "shortened": True}
    many = {str(number): number for number in range(LISTED_MAX + 1)}
    told: Any = shortened({"n": many})
    assert (len(told["n"]), told["shortened"]) == (LISTED_MAX, True)


@pytest.mark.parametrize("letter", ["x", FACE, '"', "\udcff"])
def test_a_text_that_does_not_fit_is_cut_and_the_shorter_ones_are_not(letter: str) -> None:
    told: Any = shortened({"long": letter * 4000, "short": "alice", "list": [letter * 3000]})
    assert told["short"] == "alice"
    assert told["shortened"] is True
    assert told["list"][0].rstrip("…") in letter * 3000
    assert told["list"][0].endswith("…")
    assert told["long"].endswith("…")
    assert length(told) < DETAILS_MAX + 100


@pytest.mark.parametrize(
    "details",
    [
        {"a": [FACE * 512] * 51},
        {"a": {f"{number}{FACE * 500}": FACE * 512 for number in range(51)}},
        {"a": [{"b": FACE * 512, "c": FACE * 512, "d": FACE * 512}] * 51, "e": FACE * 512, "f": FACE * 512},
        {"a": [[["x" * 512] * 9] * 9] * 9},
    ],
)
def test_together_they_are_short(details: Any) -> None:
    told = shortened(details)
    assert told["shortened"] is True
    assert length(told) < DETAILS_MAX + 150
    assert length(told) > DETAILS_MAX / 3

"""Lists of integers in columns, as databases already have them."""

from __future__ import annotations

from struct import error

import pytest

from penstock.base.integers import pack_i64s, unpack_i64s


@pytest.mark.parametrize("values", [(), (0,), (1, -1, 2**63 - 1, -(2**63)), tuple(range(1_000))])
def test_integers_come_back_in_order(values: tuple[int, ...]) -> None:
    assert unpack_i64s(pack_i64s(values)) == values


def test_the_layout_is_that_of_stored_rows() -> None:
    assert pack_i64s([1, -2]) == bytes.fromhex("0000000000000001fffffffffffffffe")


def test_what_is_cut_short_is_refused() -> None:
    with pytest.raises(error):
        unpack_i64s(bytes(9))

"""Unsigned varints, compact lengths and tagged fields, as flexible versions of messages use them (KIP-482)."""

from __future__ import annotations

import pytest

from penstock.wire.primitives import STRING_MAX_BYTES, Malformed, encode_uvarint, skip_tags, string_size, uvarint


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"), (1, "01"), (127, "7f"), (128, "8001"), (16_383, "ff7f"), (16_384, "808001"),
        (2_097_151, "ffff7f"), (2_097_152, "80808001"), (2**31 - 1, "ffffffff07"), (2**32 - 1, "ffffffff0f"),
    ],
)  # fmt: skip
def test_unsigned_varints_have_seven_bits_per_byte(value: int, encoded: str) -> None:
    data = bytes.fromhex(encoded)
    assert encode_uvarint(value) == data
    assert uvarint(b"\0" + data + b"\xff", 1) == (value, 1 + len(data))


@pytest.mark.parametrize("encoded", ["808080808001", "ffffffffff01", "80808080808080"])
def test_an_unsigned_varint_of_more_than_five_bytes_is_malformed(encoded: str) -> None:
    with pytest.raises(Malformed, match="five bytes"):
        uvarint(bytes.fromhex(encoded), 0)


def test_every_unknown_tagged_field_is_skipped_with_its_value() -> None:
    long = bytes(200)
    tags = b"\3" + b"\0\2ab" + b"\x81\1\0" + b"\5" + encode_uvarint(len(long)) + long
    assert skip_tags(b"x" + tags + b"rest", 1) == 1 + len(tags)
    assert skip_tags(b"\0rest", 0) == 1


def test_a_compact_string_is_at_most_as_long_as_one_with_an_int16_length() -> None:
    longest = encode_uvarint(STRING_MAX_BYTES + 1)
    assert string_size(longest, 0) == (STRING_MAX_BYTES + 1, len(longest))
    with pytest.raises(Malformed, match="32768 bytes"):
        string_size(encode_uvarint(STRING_MAX_BYTES + 2), 0)

"""Hostile bytes: whatever arrives, readers raise `Malformed` or give a message, and soon."""

from __future__ import annotations

import time
import tracemalloc
from random import Random

import pytest
from fixtures.schema_values import EXHAUSTIVE, Case, Values, cases, examples
from hypothesis import given
from hypothesis import strategies as st

from penstock.wire import codec
from penstock.wire.api_keys import ApiKey
from penstock.wire.messages.index import APIS
from penstock.wire.primitives import MAX_ELEMENTS, STRING_MAX_BYTES, encode_uvarint

HUGE = (bytes.fromhex("7fffffff"), bytes.fromhex("ffffffff07"), bytes.fromhex("ffffffff0f"), bytes.fromhex("80000000"))


def body_of(case: Case, random: Random) -> bytes:
    message = Values(case.facts, case.name, case.version, random, tame=False).message()
    if case.kind == "request":
        frame = b"".join(codec.encode_request(case.api_key, case.version, 1, None, message))
        return frame[codec.read_request_header(frame, 4).body :]
    frame = b"".join(codec.encode_response(case.api_key, case.version, 1, message))
    return frame[codec.read_response_header(case.api_key, case.version, frame, 4)[1] :]


def refused(case: Case, body: bytes) -> bool:
    read = codec.read_request if case.kind == "request" else codec.read_response
    try:
        read(case.api_key, case.version, body, 0)
    except codec.Malformed:
        return True
    return False


@pytest.mark.parametrize("api_key", APIS, ids=lambda key: APIS[key][0])
@examples(1, 20)
@given(seed=st.integers(0, 2**48))
def test_a_body_cut_short_anywhere_is_malformed(api_key: int, seed: int) -> None:
    random = Random(seed)
    for case in cases(api_key):
        body = body_of(case, random)
        cuts = range(len(body)) if EXHAUSTIVE or len(body) < 60 else sorted(random.sample(range(len(body)), 60))
        for cut in cuts:
            assert refused(case, body[:cut]), (case, cut)


@pytest.mark.parametrize("api_key", APIS, ids=lambda key: APIS[key][0])
@examples(1, 50)
@given(seed=st.integers(0, 2**48))
def test_flipped_bits_and_huge_lengths_raise_nothing_else(api_key: int, seed: int) -> None:
    random = Random(seed)
    for case in cases(api_key):
        body = bytearray(body_of(case, random))
        for _ in range(20 if body else 0):
            flipped = bytearray(body)
            position = random.randrange(len(flipped))
            flipped[position] ^= 1 << random.randrange(8)
            refused(case, bytes(flipped))
            flipped[position : position + 1] = random.choice(HUGE)
            refused(case, bytes(flipped))


@examples(300, 20000)
@given(data=st.binary(max_size=200), key=st.sampled_from(sorted(APIS)), newest=st.booleans())
def test_random_bytes_raise_nothing_else(data: bytes, key: int, newest: bool) -> None:
    _, low, high, _, _ = APIS[key]
    for kind in ("request", "response"):
        refused(Case(api_key=key, version=high if newest else low, kind=kind), data)


@pytest.mark.parametrize(
    ("api_key", "version", "body"),
    [
        (ApiKey.METADATA, 9, "ffffffff07"),
        (ApiKey.METADATA, 1, "7fffffff"),
        (ApiKey.PRODUCE, 9, "00ffff00000001ffffffff07"),
        (ApiKey.DELETE_TOPICS, 3, "7fffffff"),
        (ApiKey.CONSUMER_GROUP_HEARTBEAT, 0, "0261 0161 00000000 00 00 00000000 ffffffff07"),
    ],
)
def test_an_announced_array_costs_nothing_before_its_bytes_are_there(api_key: int, version: int, body: str) -> None:
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(codec.Malformed):
        codec.read_request(api_key, version, bytes.fromhex(body) + bytes(1000), 0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000
    assert time.process_time() - started < 1


def test_a_request_has_so_many_elements_at_most() -> None:
    def request(count: int) -> bytes:
        return encode_uvarint(count + 1) + b"\x02t\x00" * count + bytes(4)

    assert len(codec.read_request(ApiKey.METADATA, 9, request(MAX_ELEMENTS), 0).topics) == MAX_ELEMENTS
    with pytest.raises(codec.Malformed):
        codec.read_request(ApiKey.METADATA, 9, request(MAX_ELEMENTS + 1), 0)
    for _ in range(3):  # Each request starts from nothing.
        assert len(codec.read_request(ApiKey.METADATA, 9, request(60_000), 0).topics) == 60_000


def test_a_compact_string_is_no_longer_than_others_can_be() -> None:
    def request(size: int) -> bytes:
        return encode_uvarint(2) + encode_uvarint(size + 1) + b"t" * size + bytes(5)

    read = codec.read_request(ApiKey.METADATA, 9, request(STRING_MAX_BYTES), 0)
    assert [len(topic.name) for topic in read.topics] == [STRING_MAX_BYTES]
    with pytest.raises(codec.Malformed, match="a string announces 32768 bytes"):
        codec.read_request(ApiKey.METADATA, 9, request(STRING_MAX_BYTES + 1), 0)

"""Every message of every version, both directions: round trips, and byte for byte against kio."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from importlib import import_module
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import pytest
from fixtures.schema_values import FACTS, Case, Values, cases, examples
from hypothesis import given
from hypothesis import strategies as st

from penstock.wire import codec
from penstock.wire.api_keys import FIRST_OWN_API, ApiKey
from penstock.wire.messages import consumer_protocol
from penstock.wire.messages.index import APIS
from penstock.wire.primitives import Message

kio_serial = pytest.importorskip("kio.serial")

# What kio 0.6 does not have. These are only tested against ourselves.
NOT_IN_KIO = {
    (ApiKey.API_VERSIONS, 5),
    (ApiKey.DELETE_GROUPS, 3),
    (ApiKey.STREAMS_GROUP_DESCRIBE, 1),
    (ApiKey.STREAMS_GROUP_HEARTBEAT, 1),
    (ApiKey.STREAMS_GROUP_TOPOLOGY_DESCRIPTION_UPDATE, 0),
    (ApiKey.TXN_OFFSET_COMMIT, 6),
    (ApiKey.UNREGISTER_CONTROLLER, 0),
}

# Fields that Kafka 4.4 renamed, and kio knows by their old names.
RENAMED = {
    ("TxnOffsetCommitRequest", "generation_id"): "generation_id_or_member_epoch",
    ("StreamsGroupHeartbeatResponse", "acceptable_recovery_lag"): "acceptable_recovery_lag_legacy",
}

CORRELATION_ID = 77


def encode(case: Case, message: Message) -> tuple[bytes, int]:
    """A frame without its size, and where its body starts."""
    if case.kind == "request":
        frame = b"".join(codec.encode_request(case.api_key, case.version, CORRELATION_ID, "tëst", message))
        header = codec.read_request_header(frame, 4)
        assert (header.api_key, header.api_version) == (case.api_key, case.version)
        assert (header.correlation_id, header.client_id) == (CORRELATION_ID, "tëst")
        body = header.body
    else:
        frame = b"".join(codec.encode_response(case.api_key, case.version, CORRELATION_ID, message))
        correlation_id, body = codec.read_response_header(case.api_key, case.version, frame, 4)
        assert correlation_id == CORRELATION_ID
    assert int.from_bytes(frame[:4]) == len(frame) - 4
    return frame, body


def decode(case: Case, buffer: bytes | memoryview, position: int) -> Any:
    read = codec.read_request if case.kind == "request" else codec.read_response
    return read(case.api_key, case.version, buffer, position)


@pytest.mark.parametrize("api_key", APIS, ids=lambda key: APIS[key][0])
@examples(3, 300)
@given(seed=st.integers(0, 2**48))
def test_a_message_reads_back_as_it_was_written(api_key: int, seed: int) -> None:
    for case in cases(api_key):
        message = Values(case.facts, case.name, case.version, Random(seed), tame=False).message()
        frame, body = encode(case, message)
        assert decode(case, frame, body) == message
        assert decode(case, memoryview(bytearray(frame)), body) == message


@pytest.mark.parametrize("api_key", APIS, ids=lambda key: APIS[key][0])
@examples(3, 300)
@given(seed=st.integers(0, 2**48))
def test_bytes_are_those_of_an_independent_implementation(api_key: int, seed: int) -> None:
    for case in cases(api_key):
        if (case.api_key, case.version) in NOT_IN_KIO or case.api_key >= FIRST_OWN_API:
            continue
        message = Values(case.facts, case.name, case.version, Random(seed), tame=True).message()
        frame, body = encode(case, message)
        theirs = import_module(f"kio.schema.{case.name}.v{case.version}.{case.kind}")
        check_against_kio(getattr(theirs, case.facts["name"]), message, frame[body:])


def check_against_kio(entity: Any, message: Message, body: bytes) -> None:
    """kio reads the same values from our bytes, and writes the same bytes from its values."""
    theirs, size = kio_serial.entity_reader(entity)(body, 0)
    assert size == len(body)
    assert_same(theirs, message)
    written = BytesIO()
    kio_serial.entity_writer(entity)(written, theirs)
    assert written.getvalue() == body


def assert_same(theirs: Any, ours: Any) -> None:
    """Compare values field by field, across kio's richer types."""
    match theirs:
        case _ if is_dataclass(theirs):
            # A tagged struct that is absent is None here and a struct of defaults there.
            for item in fields(theirs):
                if ours is not None:
                    name = RENAMED.get((type(ours).__name__, item.name), item.name).removesuffix("_")
                    name = name if hasattr(ours, name) else f"{name}_ms"
                    assert_same(getattr(theirs, item.name), getattr(ours, name))
        case tuple():
            assert len(theirs) == len(ours)
            for one, other in zip(theirs, ours, strict=True):
                assert_same(one, other)
        case timedelta():
            assert round(theirs.total_seconds() * 1000) == ours
        case datetime():
            assert round(theirs.timestamp() * 1000) == ours
        case UUID():
            assert theirs.bytes == ours
        case None:
            assert ours is None or ours == bytes(16) or ours == -1
        case _:
            assert theirs == ours


def test_kio_lacks_only_what_is_listed() -> None:
    missing = set()
    for api_key, (name, oldest, newest, _, _) in APIS.items():
        for version in range(oldest, newest + 1):
            try:
                import_module(f"kio.schema.{name}.v{version}")
            except ModuleNotFoundError:
                missing.add((api_key, version))
    assert {pair for pair in missing if pair[0] < FIRST_OWN_API} == NOT_IN_KIO


@pytest.mark.parametrize("stem", ["subscription", "assignment"])
@examples(20, 500)
@given(seed=st.integers(0, 2**48))
def test_consumer_protocol_blobs(stem: str, seed: int) -> None:
    facts = next(item for item in FACTS["messages"] if item["name"] == f"ConsumerProtocol{stem.title()}")
    for version in range(4):
        message = Values(facts, "consumer_protocol", version, Random(seed), tame=True).message()
        parts: list[bytes] = []
        getattr(consumer_protocol, f"WRITE_{stem.upper()}")[version](message, parts.append, None)
        body = b"".join(parts)
        assert getattr(consumer_protocol, f"READ_{stem.upper()}")[version](body, 0) == (message, len(body))
        theirs = import_module(f"kio.schema.consumer_protocol_{stem}.v{version}.data")
        check_against_kio(getattr(theirs, facts["name"]), message, body)


def test_every_api_key_has_messages_and_the_other_way_round() -> None:
    assert {key.value: key.name.lower() for key in ApiKey} == {key: APIS[key][0] for key in APIS}


def test_generated_modules_are_what_the_generator_writes() -> None:
    script = Path(__file__).parents[3] / "tools" / "generate_messages.py"
    finished = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_a_server_never_imports_the_client_direction() -> None:
    program = (
        "import sys\n"
        "from penstock.wire import codec\n"
        "from penstock.wire.messages.heartbeat import HeartbeatRequest, HeartbeatResponse\n"
        "codec.encode_response(12, 4, 1, HeartbeatResponse())\n"
        "codec.read_request(12, 4, bytes((1, 0, 0, 0, 0, 1, 0, 0)), 0)\n"
        "found = [name for name in sys.modules if name.startswith('penstock.wire.messages.')]\n"
        "assert sorted(found) == ['penstock.wire.messages.heartbeat', 'penstock.wire.messages.index'], found\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)

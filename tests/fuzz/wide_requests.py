"""Requests that name as much as a request may: one array of each, as long as the frame and the codec allow.

They are made from the schemas, so that an API that is new is among them. What they name is there as far as the names
below are; a request of which the first look says that it is wrong shows nothing of what comes after that look.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from fixtures.raw_client import request_bytes
from fixtures.schema_values import REQUESTS, holds

from penstock.wire.api_keys import ApiKey as K
from penstock.wire.messages.index import APIS
from penstock.wire.primitives import Message
from penstock.wire.records import Record, build_batch

WIDE, GROUP, MEMBER, TXN = "wide", "group", "member", "txn"
"""A topic of very many partitions, a group with that member, a transactional id."""
MAX_BYTES, MAX_RECORD_BYTES = 2_000_000, 8_000_000
"""Of a request, and of one that carries records."""
TEXTS: Mapping[str, str] = {
    "name": WIDE, "topic": WIDE, "topic_name": WIDE, "topics": WIDE, "topic_names": WIDE, "resource_name": WIDE,
    "subscribed_topic_names": WIDE, "source_topics": WIDE, "group_id": GROUP, "groups": GROUP, "group_ids": GROUP,
    "groups_names": GROUP, "coordinator_keys": GROUP, "member_id": MEMBER, "transactional_id": TXN,
    "transactional_ids": TXN, "v3_and_below_transactional_id": TXN, "principal": "User:somebody", "host": "*",
    "principal_type": "User", "principal_name": "somebody", "entity_type": "user", "entity_name": "somebody",
    "key": "producer_byte_rate", "protocol_type": "consumer", "feature": "group.version", "process_id": "process",
    "subtopology_id": "0", "environment": "default", "states_filter": "Stable", "state_filters": "Ongoing",
}  # fmt: skip
"""What is named where nothing else is said: something that there is."""
NUMBERS: Mapping[str, int] = {
    "acks": -1, "timeout_ms": 1_000, "session_timeout_ms": 10_000, "rebalance_timeout_ms": 60_000, "replica_id": -1,
    "generation_id_or_member_epoch": -1, "generation_id": -1, "retention_time_ms": -1, "current_leader_epoch": -1,
    "last_fetched_epoch": -1, "committed_leader_epoch": -1, "timestamp": -1, "partition_max_bytes": 1_000,
    "session_epoch": -1, "max_bytes": 1_000_000, "num_partitions": 1, "replication_factor": 1, "resource_type": 2,
    "resource_type_filter": 2, "resource_pattern_type": 3, "pattern_type_filter": 3, "operation": 3,
    "permission_type": 3, "endpoint_type": 1, "mechanism": 1, "iterations": 4096, "duration_filter": -1,
    "max_version_level": 1, "response_partition_limit": 2_000, "max_records": 500, "batch_size": 500, "value": 1000,
    "max_lifetime_ms": -1, "last_offset": 0, "acknowledge_types": 1, "count": 20_000, "forgotten": 0,
}  # fmt: skip
PLACES = frozenset({"partition", "partitions", "partition_index", "partition_indexes", "index"})
FEW = {
    K.CREATE_TOPICS: 2_000, K.DELETE_TOPICS: 2_000, K.CREATE_PARTITIONS: 2_000, K.CREATE_ACLS: 10_000,
    K.DELETE_ACLS: 10_000, K.ALTER_CLIENT_QUOTAS: 10_000, K.JOIN_GROUP: 1_000, K.CONSUMER_GROUP_HEARTBEAT: 10_000,
    K.SHARE_GROUP_HEARTBEAT: 10_000, K.SHARE_FETCH: 10_000,
}  # fmt: skip
"""APIs that refuse more than so much as a whole, and how much they are asked for besides."""
FLAGS = frozenset({"validate_only", "require_stable", "include_synonyms", "committed", "transaction_result"})


@dataclass(frozen=True)
class Wide:
    """One array of one API, in the newest version that has it."""

    key: int
    version: int
    path: tuple[str, ...]
    same: bool
    """Whether it names the same again and again; else something else each time."""
    most: int = 100_000
    """Elements: of more it is only said that they are too many."""

    def __str__(self) -> str:
        what = "the same" if self.same else "others"
        return f"{K(self.key).name} v{self.version} {'.'.join(self.path)}: {self.most} times {what}"


def arrays(key: int, version: int) -> Iterator[tuple[str, ...]]:
    """Where a request has an array."""

    def of(cls: type[Message], fields: list[dict[str, Any]], facts: dict[str, Any]) -> Iterator[tuple[str, ...]]:
        for name, field in zip(cls.fields(), fields, strict=True):
            if not holds(field["versions"], version):
                continue
            kind = field["type"].removeprefix("[]")
            is_array = field["type"].startswith("[]")
            if is_array:
                yield (name,)
            inner = field.get("fields") or facts.get("structs", {}).get(kind)
            if inner:
                for path in of(_class(facts, APIS[key][0], kind), inner, facts):
                    yield (name, *path)

    facts = REQUESTS[key]
    yield from of(_class(facts, APIS[key][0], ""), facts["fields"], facts)


def _class(facts: dict[str, Any], module: str, name: str) -> Any:
    loaded = import_module(f"penstock.wire.messages.{module}")
    return getattr(loaded, facts["name"] + name, None) or getattr(loaded, name)


def all_of(served: Mapping[int, range]) -> Iterator[Wide]:
    """Every array of every API, in the newest version that has it."""
    for key, versions in sorted(served.items()):
        newest = {path: version for version in versions for path in arrays(key, version)}
        for path, version in newest.items():
            yield Wide(key, version, path, same=False)


def more_of(served: Mapping[int, range]) -> Iterator[Wide]:
    """The same, in the oldest version as well, and with things that there are."""
    for key, versions in sorted(served.items()):
        found: dict[tuple[str, ...], list[int]] = {}
        for version in versions:
            for path in arrays(key, version):
                found.setdefault(path, []).append(version)
        for path, those in found.items():
            yield Wide(key, those[-1], path, same=True)
            for version in dict.fromkeys((those[-1], those[0])):
                yield Wide(key, version, path, same=False)
            if len(path) == 1 and key in FEW:
                yield Wide(key, those[-1], path, same=False, most=FEW[key])


class Maker:
    """Makes requests about a topic of that id, for a member in that epoch."""

    def __init__(self, topic_id: bytes, epoch: int = 0) -> None:
        self._topic_id, self._epoch = topic_id, epoch
        now_ms = time.time_ns() // 1_000_000
        self._batch = build_batch([Record(0, now_ms, b"k", b"v")])

    def frame(self, wide: Wide, elements: int) -> bytes:
        """A whole frame with so many elements, or as many as it may have bytes for."""
        elements = min(elements, wide.most)
        while True:
            frame = request_bytes(wide.key, wide.version, self.message(wide, elements), 7, "wide")  # type: ignore[arg-type]
            most = MAX_RECORD_BYTES if wide.key == K.PRODUCE else MAX_BYTES
            if len(frame) <= most:
                return frame
            elements = int(elements * most / len(frame)) - 1

    def message(self, wide: Wide, elements: int) -> Any:
        """The request."""
        facts = REQUESTS[wide.key]
        message = self._struct(facts, APIS[wide.key][0], "", facts["fields"], wide, wide.path, elements, 0)
        if (set_up := SET_UP.get(wide.key)) is not None:
            set_up(message, wide, self._epoch)
        if wide.key == K.PRODUCE:
            for topic in message.topic_data:
                for share in topic.partition_data:
                    share.records = self._batch
        return message

    def _struct(
        self, facts: dict[str, Any], module: str, name: str, fields: list[dict[str, Any]], wide: Wide,
        path: tuple[str, ...], elements: int, number: int,
    ) -> Any:  # fmt: skip
        message = _class(facts, module, name)()
        for attribute, field in zip(message.fields(), fields, strict=True):
            if not holds(field["versions"], wide.version):
                continue
            kind, is_array = field["type"].removeprefix("[]"), field["type"].startswith("[]")
            inner = field.get("fields") or facts.get("structs", {}).get(kind)

            def value(
                number: int, rest: tuple[str, ...], kind: str = kind, inner: Any = inner, at: str = attribute
            ) -> Any:
                if inner:
                    return self._struct(facts, module, kind, inner, wide, rest, elements, number)
                return self._value(at, kind, number, wide)

            if path and path[0] == attribute:
                count = elements if len(path) == 1 else 1
                made = [value(one + 1 if len(path) == 1 else number, path[1:]) for one in range(count)]
                setattr(message, attribute, made if is_array else made[0])
            elif is_array and not holds(field.get("nullable"), wide.version):
                # What is repeated has what belongs to it; nothing else of the request has anything.
                setattr(message, attribute, [value(0, ())] if number or not path else [])
            elif not is_array and not holds(field.get("nullable"), wide.version):
                setattr(message, attribute, value(number, ()))
        return message

    def _element(
        self, facts: dict[str, Any], module: str, attribute: str, kind: str, inner: Any, wide: Wide, elements: int,
        number: int, rest: tuple[str, ...],
    ) -> Any:  # fmt: skip
        if inner:
            return self._struct(facts, module, kind, inner, wide, rest, elements, number)
        return self._value(attribute, kind, number, wide)

    def _value(self, attribute: str, kind: str, number: int, wide: Wide) -> Any:
        match kind:
            case "bool":
                return attribute.startswith("include") and attribute not in FLAGS
            case "string":
                text = TEXTS.get(attribute, "a")
                return text if wide.same or not number else f"{text}{number}"
            case "bytes":
                return b""
            case "records":
                return self._batch
            case "uuid":
                return self._topic_id if wide.same or not number else number.to_bytes(16)
            case "float64":
                return 1000.0
            case _:
                known = NUMBERS.get(attribute, 0)
                is_place = attribute in PLACES and wide.path[-1].startswith("part")
                return number if is_place else known


def _of_member(message: Any, wide: Wide, epoch: int) -> None:
    """A member that joins by what it subscribes, and later says what it has."""
    joins = wide.path[0] in ("subscribed_topic_names", "topology")
    message.member_id = f"{wide.path[0]}-{wide.same}" if joins else MEMBER
    message.member_epoch = 0 if joins else epoch
    if wide.key == K.CONSUMER_GROUP_HEARTBEAT:
        message.rebalance_timeout_ms = 60_000
        if joins:
            message.topic_partitions = []


def _of_streams(message: Any, wide: Wide, epoch: int) -> None:
    _of_member(message, wide, epoch)
    message.active_tasks = message.active_tasks or []
    message.standby_tasks, message.warmup_tasks = message.standby_tasks or [], message.warmup_tasks or []


def _begins(message: Any, wide: Wide, epoch: int) -> None:
    message.share_session_epoch = 0
    message.member_id = f"{'.'.join(wide.path)}{wide.same}"[-36:]
    for topic in message.topics:
        for partition in topic.partitions:
            if wide.path[-1] in ("topics", "partitions"):
                partition.acknowledgement_batches = []


def _at_once(message: Any, wide: Wide, epoch: int) -> None:
    message.max_wait_ms, message.min_bytes = 0, 0


def _any(message: Any, wide: Wide, epoch: int) -> None:
    message.coordinator_keys = message.coordinator_keys or [GROUP]


SET_UP: Mapping[int, Callable[[Any, Wide, int], None]] = {
    K.CONSUMER_GROUP_HEARTBEAT: _of_member, K.SHARE_GROUP_HEARTBEAT: _of_member, K.STREAMS_GROUP_HEARTBEAT: _of_streams,
    K.SHARE_FETCH: _begins, K.FETCH: _at_once, K.FIND_COORDINATOR: _any,
}  # fmt: skip

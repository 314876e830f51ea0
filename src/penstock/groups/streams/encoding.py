"""The stored form of a streams group (`penstock.groups.packing`). Version 1:

    group       uint8 version, int32 epoch, int32 target_epoch, int64 assigned_ms, int32 validated_epoch,
                int64 topics_hash, int64 empty_since_ms (-1: has members), configs, uint8 has a topology, topology
    configs     list of: text key, text value
    topology    int32 epoch, list of: text id, list sources, list repartition sinks, topics repartition sources,
                topics changelogs, list of copartitions: list of topics
    topics      list of: text name, int32 partitions, int32 replication factor, configs
    member      uint8 version, uint8 reconciliation, uint8 has an endpoint, int32 epoch, int32 previous_epoch,
                int32 rebalance_timeout_ms, int32 topology_epoch, int32 port, text member_id, instance_id, rack_id,
                client_id, client_host, process_id, endpoint's host, configs client tags, active tasks assigned with
                epochs, tasks standby, warm-up, the same revoking, tasks active, standby, warm-up of the target
    tasks       list of: text subtopology, int32 count, as many int32 partitions; with epochs: as many int32 epochs

Each member is a row of its own. Soft state is not stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from struct import Struct
from typing import TypeVar

from penstock.groups.packing import Unpacker, pack_count, pack_text, pack_texts, unpacked
from penstock.groups.reconcile import MemberState
from penstock.groups.streams.model import (
    InternalTopic,
    StreamsGroup,
    StreamsMember,
    Subtopology,
    Topology,
    UserEndpoint,
)
from penstock.groups.streams.tasks import Task, Tasks, TasksWithEpochs, by_subtopology

T = TypeVar("T")

_VERSION = 1
_GROUP = Struct(">Biiqiqq")
_FLAG = Struct(">B")
_INT = Struct(">i")
_NUMBERS = Struct(">ii")
_MEMBER = Struct(">BBBiiiii")


def encode(group: StreamsGroup) -> bytes:
    """The durable part of a group, without its members."""
    empty_since_ms = -1 if group.empty_since_ms is None else group.empty_since_ms
    head = _GROUP.pack(
        _VERSION, group.epoch, group.target_epoch, group.assigned_ms, group.validated_epoch, group.topics_hash,
        empty_since_ms,
    )  # fmt: skip
    topology = group.topology
    parts = [head, _pairs(group.configs.items()), _FLAG.pack(topology is not None)]
    if topology is not None:
        parts += (_INT.pack(topology.epoch), pack_count(len(topology.subtopologies)))
        parts += map(_pack_subtopology, topology.subtopologies)
    return b"".join(parts)


def _pack_subtopology(part: Subtopology) -> bytes:
    parts = [pack_text(part.subtopology_id), pack_texts(part.sources), pack_texts(part.repartition_sinks)]
    for topics in (part.repartition_sources, part.changelogs):
        parts.append(pack_count(len(topics)))
        for topic in topics:
            parts += (
                pack_text(topic.name), _NUMBERS.pack(topic.partitions, topic.replication_factor), _pairs(topic.configs),
            )  # fmt: skip
    parts.append(pack_count(len(part.copartitions)))
    parts += (pack_texts(sorted(group)) for group in part.copartitions)
    return b"".join(parts)


def encode_member(member: StreamsMember) -> bytes:
    """The durable part of a member."""
    endpoint = member.endpoint
    parts = [
        _MEMBER.pack(
            _VERSION, member.state, endpoint is not None, member.epoch, member.previous_epoch,
            member.rebalance_timeout_ms, member.topology_epoch, 0 if endpoint is None else endpoint.port,
        ),
    ]  # fmt: skip
    parts += (
        pack_text(text)
        for text in (
            member.member_id, member.instance_id, member.rack_id, member.client_id, member.client_host,
            member.process_id, "" if endpoint is None else endpoint.host,
        )
    )  # fmt: skip
    parts.append(_pairs(member.client_tags.items()))
    for held in (member.assigned, member.pending_revocation):
        parts += (_pack_tasks(held.active, held.active), _pack_tasks(held.standby), _pack_tasks(held.warmup))
    target = member.target
    parts += (_pack_tasks(target.active), _pack_tasks(target.standby), _pack_tasks(target.warmup))
    return b"".join(parts)


def decode(stored: bytes, members: Sequence[bytes]) -> StreamsGroup:
    """The group from its row and those of its members. Raises `CorruptData`."""
    read = [unpacked(member, _read_member) for member in members]
    return unpacked(stored, lambda unpacker: _read_group(unpacker, {member.member_id: member for member in read}))


def _pairs(pairs: Iterable[tuple[str, str]]) -> bytes:
    listed = list(pairs)
    return pack_count(len(listed)) + b"".join(pack_text(key) + pack_text(value) for key, value in listed)


def _pack_tasks(tasks: Iterable[Task], epochs: Mapping[Task, int] | None = None) -> bytes:
    found = by_subtopology(tasks)
    parts = [pack_count(len(found))]
    for subtopology_id, partitions in found.items():
        numbers = Struct(f">{len(partitions)}i")
        parts += (pack_text(subtopology_id), pack_count(len(partitions)), numbers.pack(*partitions))
        if epochs is not None:
            parts.append(numbers.pack(*(epochs[Task(subtopology_id, partition)] for partition in partitions)))
    return b"".join(parts)


def _read_group(unpacker: Unpacker, members: Mapping[str, StreamsMember]) -> StreamsGroup:
    version, epoch, target_epoch, assigned_ms, validated_epoch, topics_hash, empty_since_ms = unpacker.fixed(_GROUP)
    _check_version(version)
    configs = dict(_read_pairs(unpacker))
    (has_topology,) = unpacker.fixed(_FLAG)
    topology = None
    if has_topology:
        (topology_epoch,) = unpacker.fixed(_INT)
        topology = Topology(epoch=topology_epoch, subtopologies=_listed(unpacker, _read_subtopology))
    return StreamsGroup(
        epoch=epoch, target_epoch=target_epoch, assigned_ms=assigned_ms, validated_epoch=validated_epoch,
        topics_hash=topics_hash, configs=configs, topology=topology, members=members,
        empty_since_ms=None if empty_since_ms < 0 else empty_since_ms,
    )  # fmt: skip


def _read_subtopology(unpacker: Unpacker) -> Subtopology:
    return Subtopology(
        subtopology_id=unpacker.text() or "",
        sources=unpacker.texts(),
        repartition_sinks=unpacker.texts(),
        repartition_sources=_listed(unpacker, _read_topic),
        changelogs=_listed(unpacker, _read_topic),
        copartitions=_listed(unpacker, lambda unpacker: frozenset(unpacker.texts())),
    )


def _read_topic(unpacker: Unpacker) -> InternalTopic:
    name = unpacker.text() or ""
    partitions, replication_factor = unpacker.fixed(_NUMBERS)
    return InternalTopic(
        name=name, partitions=partitions, replication_factor=replication_factor, configs=_read_pairs(unpacker)
    )


def _read_member(unpacker: Unpacker) -> StreamsMember:
    version, state, has_endpoint, epoch, previous_epoch, rebalance_timeout_ms, topology_epoch, port = unpacker.fixed(
        _MEMBER
    )
    _check_version(version)
    member_id, instance_id, rack_id = unpacker.text() or "", unpacker.text(), unpacker.text()
    client_id, client_host, process_id = unpacker.text() or "", unpacker.text() or "", unpacker.text() or ""
    host = unpacker.text() or ""
    return StreamsMember(
        member_id=member_id, instance_id=instance_id, rack_id=rack_id, client_id=client_id, client_host=client_host,
        rebalance_timeout_ms=rebalance_timeout_ms, topology_epoch=topology_epoch, process_id=process_id,
        endpoint=UserEndpoint(host, port) if has_endpoint else None, client_tags=dict(_read_pairs(unpacker)),
        epoch=epoch, previous_epoch=previous_epoch, state=MemberState(state), assigned=_read_held(unpacker),
        pending_revocation=_read_held(unpacker),
        target=Tasks(*(frozenset(_read_tasks(unpacker)) for _ in range(3))),
    )  # fmt: skip


def _read_held(unpacker: Unpacker) -> TasksWithEpochs:
    active = _read_tasks(unpacker, with_epochs=True)
    return TasksWithEpochs(active, frozenset(_read_tasks(unpacker)), frozenset(_read_tasks(unpacker)))


def _read_tasks(unpacker: Unpacker, *, with_epochs: bool = False) -> dict[Task, int]:
    tasks: dict[Task, int] = {}
    for _ in range(unpacker.count()):
        subtopology_id = unpacker.text() or ""
        numbers = Struct(f">{unpacker.count()}i")
        partitions = unpacker.fixed(numbers)
        epochs = unpacker.fixed(numbers) if with_epochs else (0,) * len(partitions)
        tasks.update(
            (Task(subtopology_id, partition), epoch) for partition, epoch in zip(partitions, epochs, strict=True)
        )
    return tasks


def _read_pairs(unpacker: Unpacker) -> tuple[tuple[str, str], ...]:
    return _listed(unpacker, lambda unpacker: (unpacker.text() or "", unpacker.text() or ""))


def _listed(unpacker: Unpacker, read: Callable[[Unpacker], T]) -> tuple[T, ...]:
    return tuple(read(unpacker) for _ in range(unpacker.count()))


def _check_version(version: int) -> None:
    if version != _VERSION:
        raise ValueError(f"version {version} is unknown")

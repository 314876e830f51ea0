"""The stored form of a consumer group (`penstock.groups.packing`). Version 1:

    group    uint8 version, int32 epoch, int32 target_epoch, int64 assigned_ms, int64 topics_hash,
             int64 empty_since_ms (-1: has members), list of regular expressions
    regex    text pattern, int64 resolved_ms, list of topics
    member   uint8 version, uint8 reconciliation, uint8 speaks the classic protocol, int32 epoch, int32 previous_epoch,
             int32 rebalance_timeout_ms, int32 session_timeout_ms (classic), text member_id, instance_id, rack_id,
             client_id, client_host, assignor, regex, list of topics, list of classic protocols (text name, blob
             metadata), assigned, revoking, partitions target
    assigned list of: 16 bytes topic id, int32 count, as many int32 partitions, as many int32 epochs

Each member is a row of its own. Derived and soft state is not stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

from penstock.groups.consumer.membership import of_members
from penstock.groups.consumer.model import ClassicMemberMetadata, ConsumerGroup, ConsumerMember, ResolvedRegex
from penstock.groups.packing import (
    Unpacker,
    pack_blob,
    pack_count,
    pack_partitions,
    pack_text,
    pack_texts,
    unpacked,
)
from penstock.groups.partitions import PartitionEpochs
from penstock.groups.reconcile import MemberState

_VERSION = 1
_GROUP = Struct(">Biiqqq")
_REGEX = Struct(">q")
_MEMBER = Struct(">BBBiiii")
_TOPIC_ID = Struct(">16s")


def encode(group: ConsumerGroup) -> bytes:
    """The durable part of a group, without its members."""
    empty_since_ms = -1 if group.empty_since_ms is None else group.empty_since_ms
    parts = [
        _GROUP.pack(_VERSION, group.epoch, group.target_epoch, group.assigned_ms, group.topics_hash, empty_since_ms),
        pack_count(len(group.regexes)),
    ]
    for pattern, resolved in group.regexes.items():
        parts += (pack_text(pattern), _REGEX.pack(resolved.resolved_ms), pack_texts(sorted(resolved.topics)))
    return b"".join(parts)


def encode_member(member: ConsumerMember) -> bytes:
    """The durable part of a member."""
    classic = member.classic
    protocols = () if classic is None else classic.protocols
    parts = [
        _MEMBER.pack(
            _VERSION, member.state, classic is not None, member.epoch, member.previous_epoch,
            member.rebalance_timeout_ms, 0 if classic is None else classic.session_timeout_ms,
        ),
    ]  # fmt: skip
    parts += (
        pack_text(text)
        for text in (
            member.member_id, member.instance_id, member.rack_id, member.client_id, member.client_host,
            member.assignor, member.regex,
        )
    )  # fmt: skip
    parts.append(pack_texts(sorted(member.topics)))
    parts.append(pack_count(len(protocols)))
    for name, metadata in protocols:
        parts += (pack_text(name), pack_blob(metadata))
    parts += (_pack_assigned(member.assigned), _pack_assigned(member.pending_revocation))
    parts.append(pack_partitions({topic_id: sorted(found) for topic_id, found in member.target.items()}))
    return b"".join(parts)


def decode(stored: bytes, members: Sequence[bytes]) -> ConsumerGroup:
    """The group from its row and those of its members. Raises `CorruptData`."""
    return of_members(unpacked(stored, _read_group), [unpacked(member, _read_member) for member in members])


def _pack_assigned(assigned: PartitionEpochs) -> bytes:
    parts = [pack_count(len(assigned))]
    for topic_id, partitions in assigned.items():
        numbers = Struct(f">{len(partitions)}i")
        parts += (topic_id, pack_count(len(partitions)), numbers.pack(*partitions), numbers.pack(*partitions.values()))
    return b"".join(parts)


def _read_assigned(unpacker: Unpacker) -> PartitionEpochs:
    assigned = {}
    for _ in range(unpacker.count()):
        topic_id = bytes(unpacker.raw(_TOPIC_ID.size))
        numbers = Struct(f">{unpacker.count()}i")
        assigned[topic_id] = dict(zip(unpacker.fixed(numbers), unpacker.fixed(numbers), strict=True))
    return assigned


def _read_group(unpacker: Unpacker) -> ConsumerGroup:
    version, epoch, target_epoch, assigned_ms, topics_hash, empty_since_ms = unpacker.fixed(_GROUP)
    _check_version(version)
    regexes = {}
    for _ in range(unpacker.count()):
        pattern = unpacker.text() or ""
        (resolved_ms,) = unpacker.fixed(_REGEX)
        regexes[pattern] = ResolvedRegex(topics=frozenset(unpacker.texts()), resolved_ms=resolved_ms)
    return ConsumerGroup(
        epoch=epoch, target_epoch=target_epoch, assigned_ms=assigned_ms, topics_hash=topics_hash, regexes=regexes,
        empty_since_ms=None if empty_since_ms < 0 else empty_since_ms,
    )  # fmt: skip


def _read_member(unpacker: Unpacker) -> ConsumerMember:
    version, state, is_classic, epoch, previous_epoch, rebalance_timeout_ms, session_timeout_ms = unpacker.fixed(
        _MEMBER
    )
    _check_version(version)
    member_id, instance_id, rack_id = unpacker.text() or "", unpacker.text(), unpacker.text()
    client_id, client_host = unpacker.text() or "", unpacker.text() or ""
    assignor, regex, topics = unpacker.text(), unpacker.text() or "", frozenset(unpacker.texts())
    protocols = tuple((unpacker.text() or "", unpacker.blob() or b"") for _ in range(unpacker.count()))
    assigned, pending_revocation = _read_assigned(unpacker), _read_assigned(unpacker)
    target = {topic_id: frozenset(found) for topic_id, found in unpacker.partitions().items()}
    classic = ClassicMemberMetadata(session_timeout_ms=session_timeout_ms, protocols=protocols) if is_classic else None
    return ConsumerMember(
        member_id=member_id, instance_id=instance_id, rack_id=rack_id, client_id=client_id, client_host=client_host,
        rebalance_timeout_ms=rebalance_timeout_ms, assignor=assignor, topics=topics, regex=regex, classic=classic,
        epoch=epoch, previous_epoch=previous_epoch, state=MemberState(state), assigned=assigned,
        pending_revocation=pending_revocation, target=target,
    )  # fmt: skip


def _check_version(version: int) -> None:
    if version != _VERSION:
        raise ValueError(f"version {version} is unknown")

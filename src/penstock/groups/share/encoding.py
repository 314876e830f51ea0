"""The stored form of a share group (`penstock.groups.packing`). Version 1:

    group   uint8 version, int32 epoch, int32 target_epoch, int64 assigned_ms, int64 empty_since_ms (-1: has members),
            list of: 16 bytes topic id, int32 first_count, int32 count
    member  uint8 version, int32 epoch, int32 previous_epoch, text member_id, rack_id, client_id, client_host,
            list of topics, partitions assigned, partitions target

Each member is a row of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

from penstock.groups.packing import Unpacker, pack_count, pack_partitions, pack_text, pack_texts, unpacked
from penstock.groups.partitions import Partitions
from penstock.groups.share.model import KnownTopic, ShareGroup, ShareMember

_VERSION = 1
_GROUP = Struct(">Biiqq")
_TOPIC = Struct(">16sii")
_MEMBER = Struct(">Bii")


def encode(group: ShareGroup) -> bytes:
    """The durable part of a group, without its members."""
    empty_since_ms = -1 if group.empty_since_ms is None else group.empty_since_ms
    parts = [
        _GROUP.pack(_VERSION, group.epoch, group.target_epoch, group.assigned_ms, empty_since_ms),
        pack_count(len(group.topics)),
    ]
    parts += (_TOPIC.pack(topic_id, *known) for topic_id, known in group.topics.items())
    return b"".join(parts)


def encode_member(member: ShareMember) -> bytes:
    """The durable part of a member."""
    parts = [_MEMBER.pack(_VERSION, member.epoch, member.previous_epoch)]
    parts += (pack_text(text) for text in (member.member_id, member.rack_id, member.client_id, member.client_host))
    parts.append(pack_texts(sorted(member.topics)))
    parts += (_pack(member.assigned), _pack(member.target))
    return b"".join(parts)


def decode(stored: bytes, members: Sequence[bytes]) -> ShareGroup:
    """The group from its row and those of its members. Raises `CorruptData`."""
    group = unpacked(stored, _read_group)
    read = [unpacked(member, _read_member) for member in members]
    return ShareGroup(
        epoch=group.epoch,
        target_epoch=group.target_epoch,
        assigned_ms=group.assigned_ms,
        topics=group.topics,
        empty_since_ms=group.empty_since_ms,
        members={member.member_id: member for member in read},
    )


def _pack(partitions: Partitions) -> bytes:
    return pack_partitions({topic_id: sorted(found) for topic_id, found in partitions.items()})


def _read_group(unpacker: Unpacker) -> ShareGroup:
    version, epoch, target_epoch, assigned_ms, empty_since_ms = unpacker.fixed(_GROUP)
    _check(version)
    topics = {}
    for _ in range(unpacker.count()):
        topic_id, first_count, count = _fixed_topic(unpacker)
        topics[topic_id] = KnownTopic(first_count, count)
    return ShareGroup(
        epoch=epoch,
        target_epoch=target_epoch,
        assigned_ms=assigned_ms,
        topics=topics,
        empty_since_ms=None if empty_since_ms < 0 else empty_since_ms,
    )


def _fixed_topic(unpacker: Unpacker) -> tuple[bytes, int, int]:
    topic_id, first_count, count = unpacker.fixed(_TOPIC)
    return bytes(topic_id), first_count, count


def _read_member(unpacker: Unpacker) -> ShareMember:
    version, epoch, previous_epoch = unpacker.fixed(_MEMBER)
    _check(version)
    member_id, rack_id = unpacker.text() or "", unpacker.text()
    client_id, client_host = unpacker.text() or "", unpacker.text() or ""
    return ShareMember(
        member_id=member_id,
        rack_id=rack_id,
        client_id=client_id,
        client_host=client_host,
        topics=frozenset(unpacker.texts()),
        epoch=epoch,
        previous_epoch=previous_epoch,
        assigned=_unpack(unpacker),
        target=_unpack(unpacker),
    )


def _unpack(unpacker: Unpacker) -> Partitions:
    return {topic_id: frozenset(found) for topic_id, found in unpacker.partitions().items()}


def _check(version: int) -> None:
    if version != _VERSION:
        raise ValueError(f"version {version} is unknown")

"""Reading as a member of a consumer group (KIP-848): the broker assigns partitions, and keeps committed offsets.

Heartbeats are sent between fetches. A member whose output blocks for longer than its session lasts is removed from the
group, and joins again. Only offsets of records that were printed are committed, so none is lost; after a crash some are
printed again.
"""

from __future__ import annotations

import time
from base64 import urlsafe_b64decode
from collections.abc import Iterator, Mapping, Sequence

from penstock.base.randomness import SystemRandomness, uuid_text
from penstock.cli.kafka.client import Client, TopicPartition, by_topic
from penstock.cli.kafka.coordinators import group_coordinator
from penstock.cli.kafka.failures import BrokerError, check
from penstock.cli.kafka.fetching import Reader
from penstock.cli.kafka.groups import commit_offsets, committed_offsets, describe_group
from penstock.cli.kafka.offsets import OffsetRange, offset_ranges, resolve
from penstock.cli.text_formats.positions import Position
from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatRequestTopicPartitions,
    ConsumerGroupHeartbeatResponse,
)
from penstock.wire.records import Record

_JOIN, _LEAVE = 0, -1
_REBALANCE_TIMEOUT_MS = 60_000
_REMOVED = frozenset({ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.FENCED_MEMBER_EPOCH})
_SHORTEST_S = 0.1

Partitions = frozenset[TopicPartition]


class GroupReader:
    """A member. Where the group has committed nothing, it begins at `start`."""

    def __init__(
        self, client: Client, group: str, topics: Sequence[str], start: Position, *, follow: bool, committed: bool
    ) -> None:
        self._client, self._group, self._topics = client, group, list(dict.fromkeys(topics))
        self._start, self._follow, self._committed = start, follow, committed
        self._member, self._epoch = uuid_text(SystemRandomness().token(16)), _JOIN
        self._owned: Partitions = frozenset()
        self._reader = Reader(client, {}, ends={})
        self._next_beat_s = 0.0
        self._shown: dict[TopicPartition, int] = {}
        self._stored: dict[TopicPartition, int] = {}
        self._names: dict[str, str] = {}

    @property
    def open(self) -> bool:
        """Whether there is, or may be, more to read for this member."""
        if self._follow or self._epoch == _JOIN or self._reader.open:
            return True
        return describe_group(self._client, self._group).state != "Stable"  # It may get others.

    def poll(self, wait_ms: int) -> Iterator[tuple[TopicPartition, Record]]:
        """Records of the partitions that this member has now."""
        left_s = self._next_beat_s - self._client.clock.monotonic()
        if left_s <= 0:
            left_s = self._beat()
        wait_s = min(wait_ms / 1_000, max(left_s, _SHORTEST_S))
        if not self._reader.open:
            time.sleep(wait_s)  # noqa: TID251  # there is no loop in a command
            return
        yield from self._reader.poll(int(wait_s * 1_000))
        # All of it has been shown, and what is not for people need not be read again.
        self._shown.update(self._reader.positions)

    def shown(self, where: TopicPartition, offset: int) -> None:
        """Say that a record has been printed."""
        self._shown[where] = offset + 1

    def commit(self) -> None:
        """Commit what has been shown since the last time."""
        moved = {
            where: offset
            for where, offset in self._shown.items()
            if where in self._owned and self._stored.get(where) != offset
        }
        if not moved:
            return
        try:
            commit_offsets(self._client, self._group, moved, member_id=self._member, epoch=self._epoch)
        except BrokerError as error:
            if error.code in _REMOVED:
                self._rejoin()
            elif error.code == ErrorCode.STALE_MEMBER_EPOCH:
                self._next_beat_s = 0.0  # The epoch comes with the next heartbeat; then it is committed.
            else:
                raise
        else:
            self._stored.update(moved)

    def leave(self, *, commit: bool = True) -> None:
        """Commit, and let others have the partitions at once."""
        if self._epoch == _JOIN:
            return
        if commit:
            self.commit()
        self._call(ConsumerGroupHeartbeatRequest(group_id=self._group, member_id=self._member, member_epoch=_LEAVE))

    def _beat(self) -> float:
        """Send a heartbeat, and take up what it brings; seconds until the next one."""
        request = ConsumerGroupHeartbeatRequest(
            group_id=self._group, member_id=self._member, member_epoch=self._epoch,
            rebalance_timeout_ms=_REBALANCE_TIMEOUT_MS, subscribed_topic_names=self._topics,
            topic_partitions=self._by_id(),
        )  # fmt: skip
        try:
            answer = self._call(request)
        except BrokerError as error:
            if error.code not in _REMOVED:
                raise
            self._rejoin()
            return 0.0
        self._epoch = answer.member_epoch
        pause_s = answer.heartbeat_interval_ms / 1_000
        if answer.assignment is not None:
            wanted = frozenset(
                TopicPartition(name, partition)
                for topic in answer.assignment.topic_partitions
                if (name := self._name_of(topic.topic_id)) is not None
                for partition in topic.partitions
            )
            if wanted != self._owned:
                self._change_to(wanted)
                pause_s = 0.0  # The broker waits to hear of it.
        self._next_beat_s = self._client.clock.monotonic() + pause_s
        return pause_s

    def _change_to(self, wanted: Partitions) -> None:
        """Give up what is not ours any more, once what was shown of it is committed, and begin with what is new."""
        self.commit()
        kept = self._owned & wanted
        beginnings = self._beginnings(wanted - kept)
        positions = {where: self._reader.positions[where] for where in kept} | beginnings
        self._owned = wanted
        # Also where it begins is committed, as Kafka's consumers do: else nobody could see how far it is behind.
        self._shown = {where: offset for where, offset in self._shown.items() if where in kept} | beginnings
        ends: Mapping[TopicPartition, int] | None = None
        if not self._follow:
            ends = {where: one.end for where, one in self._offset_ranges(wanted).items()}
        self._reader = Reader(self._client, positions, ends=ends, committed=self._committed)

    def _beginnings(self, new: Partitions) -> dict[TopicPartition, int]:
        if not new:
            return {}
        stored = {where: found.offset for where, found in committed_offsets(self._client, self._group).items()}
        self._stored |= {where: offset for where, offset in stored.items() if where in new}
        kept = self._offset_ranges(new)
        fresh = resolve(self._client, self._start, {where: kept[where] for where in new if where not in stored})
        # What was committed may be deleted since.
        return fresh | {where: max(stored[where], kept[where].start) for where in new if where in stored}

    def _offset_ranges(self, partitions: Partitions) -> dict[TopicPartition, OffsetRange]:
        return offset_ranges(self._client, sorted(partitions), committed=self._committed)

    def _rejoin(self) -> None:
        """Begin again as a new member, without partitions."""
        self._epoch, self._owned, self._next_beat_s = _JOIN, frozenset(), 0.0
        self._reader = Reader(self._client, {}, ends={})
        self._shown, self._stored = {}, {}

    def _name_of(self, topic_id: bytes) -> str | None:
        """A topic's name; None if it has been deleted."""
        text = uuid_text(topic_id)
        if text not in self._names:
            topics = self._client.retry(lambda: self._client.metadata(self._topics)).topics.values()
            self._names = {topic.topic_id: topic.name for topic in topics if topic.topic_id is not None}
        return self._names.get(text)

    def _by_id(self) -> list[ConsumerGroupHeartbeatRequestTopicPartitions]:
        ids = {name: urlsafe_b64decode(f"{text}==") for text, name in self._names.items()}
        return [
            ConsumerGroupHeartbeatRequestTopicPartitions(
                topic_id=ids[topic], partitions=[where.partition for where in owned]
            )
            for topic, owned in by_topic(self._owned).items()
        ]

    def _call(self, request: ConsumerGroupHeartbeatRequest) -> ConsumerGroupHeartbeatResponse:
        def attempt() -> ConsumerGroupHeartbeatResponse:
            _, connection = group_coordinator(self._client, self._group)
            answer = connection.call(ApiKey.CONSUMER_GROUP_HEARTBEAT, request, ConsumerGroupHeartbeatResponse)
            check(answer.error_code, f"group {self._group!r}", answer.error_message)
            return answer

        return self._client.retry(attempt)

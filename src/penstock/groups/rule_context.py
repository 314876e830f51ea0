"""What rules use besides the group and the request (settings, topics, time), and rules that all protocols with
server-side assignment share.

Pure: no await, no clock, no I/O.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Protocol

from penstock.base.dataclasses import dataclass
from penstock.groups.settings import ConsumerSettings, GroupSettings
from penstock.groups.streams.model import StreamsGroupSettings

QUICK_INTERVAL_MS = 250
"""The heartbeat interval while a change is in progress, in small groups."""
SETTLING_MS = 2_000
"""How long after its last change a group is expected to change again."""
WORK_PER_MS = 200
"""How many members and partitions an assignor processes in a millisecond, at least. It may use a tenth of the time."""


class TopicView(Protocol):
    """The topics of a virtual cluster."""

    @property
    def version(self) -> int:
        """A number that changes with any topic; never 0."""

    def topic_id(self, name: str) -> bytes | None:
        """The id of the topic of that name, or None."""

    def topic_name(self, topic_id: bytes) -> str | None:
        """The name of the topic with that id, or None."""

    def partition_count(self, topic_id: bytes) -> int | None:
        """How many partitions it has, or None when there is no such topic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleContext:
    """The settings and topics that a rule uses, at a given time."""

    now_ms: int
    topics: TopicView
    settings: GroupSettings
    consumer: ConsumerSettings
    """The settings of this group."""
    streams: StreamsGroupSettings
    """The settings of this group."""


def fingerprint(names: Iterable[str], topics: TopicView) -> int:
    """A hash that changes when topics, or their partition counts, do; 0 if none of them exists."""
    digest = hashlib.blake2b(digest_size=8)
    found = False
    for name in sorted(names):
        topic_id = topics.topic_id(name)
        if topic_id is not None:
            found = True
            digest.update(topic_id + (topics.partition_count(topic_id) or 0).to_bytes(4, "big"))
    return int.from_bytes(digest.digest(), "big", signed=True) if found else 0


def may_assign(assigned_ms: int, interval_ms: int, work: int, now_ms: int) -> bool:
    """Whether a new target may be computed: not too soon after the last one, and the later the more work it is."""
    pause_ms = max(interval_ms, work * 10 // WORK_PER_MS)
    return assigned_ms == 0 or not 0 <= now_ms - assigned_ms < pause_ms


def next_heartbeat_ms(interval_ms: int, member_count: int, *, is_settled: bool, changed_ms: int, now_ms: int) -> int:
    """The heartbeat interval of a member: short while there may be news for it."""
    if is_settled and not 0 <= now_ms - changed_ms < SETTLING_MS:
        return interval_ms
    return min(interval_ms, max(QUICK_INTERVAL_MS, member_count))

"""Members of streams groups (KIP-1071): as members of consumer groups, but with tasks, which read the partitions of the
same number. A task is used while it is active; a standby task is nobody's use."""

from __future__ import annotations

from typing import Any, ClassVar

from simulation.heartbeating import Member

from penstock.wire.api_keys import ApiKey
from penstock.wire.messages import streams_group_heartbeat as beats

PART = "0"


class StreamsMember(Member):
    """One member of an application whose only subtopology keeps state."""

    HEARTBEAT: ClassVar[ApiKey] = ApiKey.STREAMS_GROUP_HEARTBEAT

    def request(self) -> Any:
        """Full, as after anything that may have gone wrong."""
        joins = self.epoch == 0
        topology = beats.Topology(
            subtopologies=[
                beats.Subtopology(
                    subtopology_id=PART, source_topics=[self.topic],
                    state_changelog_topics=[beats.TopicInfo(name=f"{self.group_id}-changelog")],
                )
            ]
        )  # fmt: skip
        mine = sorted(partition for _, partition in self.using)
        return beats.StreamsGroupHeartbeatRequest(
            group_id=self.group_id, member_id=self.member_id, member_epoch=self.epoch, process_id=self.name,
            rebalance_timeout_ms=60_000, topology=topology if joins else None,
            active_tasks=[beats.StreamsGroupHeartbeatRequestTaskIds(subtopology_id=PART, partitions=mine)]
            if mine else [],
            standby_tasks=[], warmup_tasks=[],
        )  # fmt: skip

    def assigned(self, answer: Any) -> set[tuple[bytes, int]] | None:
        """What an answer says the member has, if it says so."""
        if answer.active_tasks is None:
            return None
        return {
            (tasks.subtopology_id.encode(), partition)
            for tasks in answer.active_tasks
            for partition in tasks.partitions
        }

"""Members of share groups (KIP-932) as far as they are members: told what to read, which others may be told as well."""

from __future__ import annotations

from typing import Any, ClassVar

from simulation.heartbeating import Member

from penstock.wire.api_keys import ApiKey
from penstock.wire.messages.share_group_describe import ShareGroupDescribeRequest
from penstock.wire.messages.share_group_heartbeat import ShareGroupHeartbeatRequest


class ShareMember(Member):
    """One member. It commits nothing, and gives back nothing before others may have it."""

    HEARTBEAT: ClassVar[ApiKey] = ApiKey.SHARE_GROUP_HEARTBEAT

    async def commit(self) -> None:
        """There is nothing to be committed."""

    def request(self) -> Any:
        """Full, as after anything that may have gone wrong."""
        return ShareGroupHeartbeatRequest(
            group_id=self.group_id, member_id=self.member_id, member_epoch=self.epoch,
            subscribed_topic_names=[self.topic],
        )  # fmt: skip

    async def is_described_so(self) -> bool | None:
        """Whether the group says that this member has what it was told; None while it does not."""
        request = ShareGroupDescribeRequest(group_ids=[self.group_id])
        (group,) = (await self.call(ApiKey.SHARE_GROUP_DESCRIBE, 1, request)).groups
        for member in group.members:
            if member.member_id == self.member_id:
                return True if self.assigned(member) == self.told and member.member_epoch == self.epoch else None
        return None

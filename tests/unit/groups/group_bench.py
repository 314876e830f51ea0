"""A group on a bench: rules applied one after the other, answers and timers kept, time moved by hand. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from struct import pack

from penstock.groups import transitions
from penstock.groups.join import join
from penstock.groups.model import (
    ClassicGroup,
    ClassicHeartbeat,
    CommitOffsets,
    GroupDecision,
    GroupState,
    Join,
    JoinResult,
    LeavingMember,
    OffsetAndMetadata,
    Record,
    Sync,
    SyncResult,
    TransactionOwner,
)
from penstock.groups.rebalance import member_error
from penstock.groups.settings import GroupSettings
from penstock.wire.error_codes import ErrorCode

TOPIC = bytes(range(16))


def subscription(*topics: str) -> bytes:
    """Consumer protocol metadata, version 0."""
    return pack(">hi", 0, len(topics)) + b"".join(pack(">h", len(t)) + t.encode() for t in topics) + pack(">i", -1)


class Bench:
    """One group and everybody who waits for it."""

    def __init__(self, settings: GroupSettings | None = None) -> None:
        self.settings = settings or GroupSettings()
        self.group: ClassicGroup | None = None
        self.now_ms = 1_000_000
        self.records: list[Record] = []
        self.answers: dict[int, object] = {}
        self.asked: dict[int, str] = {}
        self.timers: dict[str, int] = {}
        self._last = 0
        self._new_ids = 0

    # --- Requests: each returns its waiter ---

    def join(
        self,
        member_id: str = "",
        *,
        protocols: Sequence[tuple[str, bytes]] = (("range", b""),),
        protocol_type: str = "consumer",
        instance_id: str | None = None,
        version: int = 9,
        session_timeout_ms: int = 10_000,
        rebalance_timeout_ms: int = 60_000,
    ) -> int:
        self._new_ids += 1
        request = Join(
            member_id=member_id,
            new_member_id=f"m{self._new_ids}",
            instance_id=instance_id,
            client_id="client",
            client_host="/127.0.0.1",
            session_timeout_ms=session_timeout_ms,
            rebalance_timeout_ms=rebalance_timeout_ms,
            protocol_type=protocol_type,
            protocols=tuple(protocols),
            member_id_required=version >= 4,
            may_skip_assignment=version >= 9,
        )
        waiter = self._waiter("join")
        self.apply(join(self.group, request, waiter, self.now_ms, self.settings))
        return waiter

    def sync(self, member_id: str, generation: int, assignments: dict[str, bytes] | None = None, **more: str) -> int:
        request = Sync(member_id=member_id, generation=generation, assignments=assignments or {}, **more)
        waiter = self._waiter("sync")
        self.apply(transitions.sync(self.group, request, waiter, self.now_ms, self.settings))
        return waiter

    def heartbeat(self, member_id: str, generation: int, instance_id: str | None = None) -> ErrorCode:
        request = ClassicHeartbeat(member_id=member_id, generation=generation, instance_id=instance_id)
        waiter = self._waiter("heartbeat")
        self.apply(transitions.heartbeat(self.group, request, waiter))
        return self.answers[waiter]

    def leave(self, *leavers: str | LeavingMember) -> tuple[ErrorCode, ...]:
        named = [leaver if isinstance(leaver, LeavingMember) else LeavingMember(member_id=leaver) for leaver in leavers]
        waiter = self._waiter("leave")
        self.apply(transitions.leave(self.group, named, waiter, self.now_ms, self.settings))
        return self.answers[waiter].errors

    def commit(
        self, member_id: str = "", generation: int = -1, *, instance_id: str | None = None, version: int = 9,
        owner: TransactionOwner | None = None,
    ):  # fmt: skip
        offset = OffsetAndMetadata(committed_offset=5, leader_epoch=0, metadata="", committed_ms=self.now_ms)
        request = CommitOffsets(
            member_id=member_id,
            instance_id=instance_id,
            generation=generation,
            offsets={(TOPIC, 0): offset},
            knows_unknown_groups=version >= 9,
            owner=owner,
        )
        waiter = self._waiter("commit")
        self.apply(transitions.commit_offsets(self.group, request, waiter, self.now_ms, self.settings))
        return self.answers[waiter]

    def delete(self) -> ErrorCode:
        waiter = self._waiter("delete")
        self.apply(transitions.delete_group(self.group, waiter))
        return self.answers[waiter]

    def remove(self) -> ErrorCode:
        waiter = self._waiter("remove")
        self.apply(transitions.remove_group(self.group, waiter))
        return self.answers[waiter]

    # --- Time ---

    def pass_ms(self, delay_ms: int) -> None:
        """Let time pass; timers fire when they are due."""
        end_ms = self.now_ms + delay_ms
        while self.timers and min(self.timers.values()) <= end_ms:
            name = min(self.timers, key=lambda name: (self.timers[name], name))
            self.now_ms = max(self.now_ms, self.timers.pop(name))
            self.apply(transitions.expired(self.group, name, self.now_ms, self.settings))
        self.now_ms = end_ms

    def restart(self) -> None:
        """The process dies: what was parked is gone with its connections, the durable group is read back."""
        from penstock.groups.encoding import decode, encode
        from penstock.groups.model import GroupDeleted, GroupStored

        self.timers.clear()
        self.asked.clear()
        stored = [r for r in self.records if isinstance(r, GroupStored | GroupDeleted)]
        self.group = None
        if stored and isinstance(stored[-1], GroupStored):
            self.apply(transitions.restored(decode(encode(stored[-1].group)), self.now_ms, self.settings))

    # --- What happened ---

    def apply(self, decision: GroupDecision) -> None:
        self.group = decision.state
        self.records += decision.records
        for reply in decision.replies:
            assert reply.waiter in self.asked, "answered twice, or nobody asked"
            del self.asked[reply.waiter]
            self.answers[reply.waiter] = reply.answer
        for timer in decision.timers:
            if timer.delay_ms is None:
                self.timers.pop(timer.name, None)
            else:
                assert timer.delay_ms >= 0
                self.timers[timer.name] = self.now_ms + timer.delay_ms

    def joined(self, waiter: int) -> JoinResult:
        answer = self.answers[waiter]
        assert isinstance(answer, JoinResult)
        return answer

    def synced(self, waiter: int) -> SyncResult:
        answer = self.answers[waiter]
        assert isinstance(answer, SyncResult)
        return answer

    def _waiter(self, kind: str) -> int:
        self._last += 1
        self.asked[self._last] = kind
        return self._last

    # --- Shortcuts ---

    @property
    def state(self) -> GroupState | None:
        return None if self.group is None else self.group.state

    def stable(self, count: int = 1, **more: object) -> list[str]:
        """A stable group of that many members, joined as old clients do; returns their ids, the leader first."""
        waiters = [self.join(version=3, **more) for _ in range(count)]
        self.pass_ms(1_000)
        ids = [self.joined(waiter).member_id for waiter in waiters]
        self.sync_all({member_id: member_id.encode() for member_id in ids})
        return ids

    def sync_all(self, assignments: dict[str, bytes]) -> None:
        group = self.group
        for member_id in sorted(group.members, key=lambda member_id: member_id == group.leader):
            self.sync(member_id, group.generation, assignments if member_id == group.leader else None)
        assert self.state is GroupState.STABLE

    def is_member(self, member_id: str) -> bool:
        return self.group is not None and member_error(self.group, member_id, None) is ErrorCode.NONE

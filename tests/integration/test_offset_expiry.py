"""Offsets whose time is over go by themselves, and their groups with them."""

from __future__ import annotations

from pathlib import Path

from fixtures.server import Server
from fixtures.waiting import eventually
from fixtures.wire import Wire

from penstock.wire.api_keys import ApiKey
from penstock.wire.messages.list_groups import ListGroupsRequest
from penstock.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)

NOT_YET_MS = 3_600_000


def commit(wire: Wire, group: str, retention_ms: int) -> None:
    """As clients of before KIP-211 do, who say themselves how long an offset is to be kept."""
    partition = OffsetCommitRequestPartition(partition_index=0, committed_offset=1, committed_metadata="")
    request = OffsetCommitRequest(
        group_id=group, generation_id_or_member_epoch=-1, member_id="", retention_time_ms=retention_ms,
        topics=[OffsetCommitRequestTopic(name="t", partitions=[partition])],
    )  # fmt: skip
    answer = wire.call(ApiKey.OFFSET_COMMIT, 2, request)
    assert answer.topics[0].partitions[0].error_code == 0


def groups(wire: Wire) -> set[str]:
    return {group.group_id for group in wire.call(ApiKey.LIST_GROUPS, 4, ListGroupsRequest()).groups}


def test_what_nobody_wants_any_more_goes(tmp_path: Path) -> None:
    server = Server(tmp_path, settings={"offsets.retention.check.interval.ms": "50"})
    server.start()
    try:
        with Wire(server.bootstrap) as wire:
            wire.create_topic("t")
            commit(wire, "kept", NOT_YET_MS)
            commit(wire, "gone", 1)
            assert eventually(lambda: groups(wire) == {"kept"}), groups(wire)
        assert server.stop() == 0
    finally:
        if server.running:
            server.kill()

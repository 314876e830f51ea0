"""The queue: nobody waits for it, nothing gets lost without being counted, and silence costs nothing."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from penstock.audit import service
from penstock.audit.model import THE_CLUSTER, Caller, Changed
from penstock.audit.policy import Policy
from penstock.audit.service import AuditLog
from penstock.authorization.authorizer import Decision
from penstock.authorization.rules import DEFAULT_DENY, SUPER_USER, Verdict
from penstock.base.acls import Operation, ResourceType
from penstock.base.clock import SystemClock
from penstock.base.context import RequestContext
from penstock.base.errors import InvalidRequest, PlatformError, Unavailable
from penstock.base.randomness import SeededRandomness
from penstock.identity.attempts import Attempt
from penstock.identity.model import Identity
from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.delete_topics import DeletableTopicResult, DeleteTopicsRequest, DeleteTopicsResponse
from penstock.wire.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResponse,
    DescribeConfigsResult,
)
from penstock.wire.messages.enter_cluster import EnterClusterRequest, EnterClusterResponse
from penstock.wire.messages.incremental_alter_configs import (
    AlterConfigsResource,
    AlterConfigsResourceResponse,
    IncrementalAlterConfigsRequest,
)
from penstock.wire.messages.incremental_alter_configs import IncrementalAlterConfigsResponse as AlterConfigsResponse
from penstock.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)

CONTEXT = RequestContext(principal="User:eve", client_id="c", client_host="10.0.0.7", connection_id=4)


class Kept:
    """Keeps events; fails, or is held up, as it is told."""

    def __init__(self) -> None:
        self.batches: list[list[dict[str, Any]]] = []
        self.failures: list[PlatformError | Exception] = []
        self.open = asyncio.Event()
        self.open.set()
        self.tried = 0

    async def append(self, events: Sequence[bytes]) -> None:
        self.tried += 1
        await self.open.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.batches.append([json.loads(event) for event in events])

    @property
    def events(self) -> list[dict[str, Any]]:
        return [event for batch in self.batches for event in batch]

    @property
    def losses(self) -> int:
        return sum(self.losses_of.values())

    @property
    def losses_of(self) -> Counter[str]:
        """How many events are said to be lost, by cluster."""
        counted: Counter[str] = Counter()
        for event in self.events:
            if event["type"].endswith("loss"):
                counted[event["source"].rpartition("=")[2]] += event["data"]["loss"]["count"]
        return counted


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "RETRY_S", 0.001)
    monkeypatch.setattr(service, "RETRY_MAX_S", 0.002)
    monkeypatch.setattr(service, "CLOSE_S", 0.2)


def log_over(
    kept: Kept, *, policy: Policy | None = None, queue_max: int = 1_000, queue_bytes: int = 1 << 20,
    gather_s: float = 0.001,
) -> AuditLog:  # fmt: skip
    return AuditLog(
        policy=policy or Policy(), appender=kept, names=lambda cluster_id: f"lkc-{cluster_id}", home_cluster_id=0,
        correlation_id=lambda connection_id: 70 + connection_id, clock=SystemClock(),
        randomness=SeededRandomness("audit"), queue_max=queue_max, queue_bytes=queue_bytes,
        gather_s=gather_s,
    )  # fmt: skip


def decided(name: str, verdict: Verdict = DEFAULT_DENY) -> Decision:
    return Decision(
        api_key=ApiKey.PRODUCE, operation=Operation.WRITE, resource_type=ResourceType.TOPIC, resource_name=name,
        verdict=verdict,
    )  # fmt: skip


def deny(log: AuditLog, count: int, *, start: int = 0) -> None:
    for number in range(start, start + count):
        log.on_decision(CONTEXT, decided(f"t{number}"))


async def idle(log: AuditLog) -> None:
    """Until nothing is left to tell."""
    async with asyncio.timeout(60):  # Only against a hang: how long it takes depends on the machine.
        while log._task is not None:
            await asyncio.sleep(0.001)


def names_in(kept: Kept) -> list[str]:
    return [event["subject"].rpartition("=")[2] for event in kept.events if event["type"].endswith("authorization")]


async def test_denials_are_written_in_order_and_then_no_task_runs(kept: Kept) -> None:
    log = log_over(kept)
    assert log._task is None
    deny(log, 3)
    assert kept.tried == 0
    await idle(log)
    assert names_in(kept) == ["t0", "t1", "t2"]
    assert len(kept.batches) == 1
    assert kept.events[0]["data"]["request"] == {"correlation_id": "74", "client_id": "c"}
    assert len({event["id"] for event in kept.events}) == 3
    assert log.stats.events == {"authorization": 3}
    assert (log.stats.lost, log.waiting) == (0, 0)


async def test_allowed_decisions_are_written_if_the_policy_says_so(kept: Kept) -> None:
    silent = log_over(kept)
    silent.on_decision(CONTEXT, decided("t", SUPER_USER))
    assert (silent.waiting, silent._task) == (0, None)
    log = log_over(kept, policy=Policy.of(("produce",), 1))
    log.on_decision(CONTEXT, decided("t", SUPER_USER))
    await idle(log)
    assert kept.events[0]["data"]["authorizationInfo"]["granted"] is True


async def test_attempts(kept: Kept) -> None:
    log = log_over(kept)
    log.on_attempt(Attempt(mechanism="SSL", client_host="h", identity=Identity(principal="User:a", cluster_id=3)))
    log.on_attempt(Attempt(mechanism="SASL_SSL/PLAIN", client_host="h", claimed="a", message="no"))
    log.on_attempt(Attempt(mechanism="SASL_SSL/PLAIN", client_host="h", is_unknown=True, message="no"))
    await idle(log)
    assert [
        (event["source"][-1], event["data"]["result"]["status"], event["data"]["authenticationInfo"]["principal"])
        for event in kept.events
    ] == [
        ("3", "SUCCESS", "User:a"), ("1", "UNAUTHENTICATED", "None:UNKNOWN_USER"),
        ("1", "UNKNOWN_USER_DENIED", "None:UNKNOWN_USER"),
    ]  # fmt: skip


async def test_facts_beyond_the_queue_are_dropped_counted_and_reported(kept: Kept) -> None:
    log = log_over(kept, queue_max=16)  # Twelve of them for decisions.
    await held_up(log, kept)
    deny(log, 27, start=1)
    assert (log.waiting, log.stats.lost) == (12, 15)
    kept.open.set()
    await idle(log)
    assert names_in(kept) == [f"t{number}" for number in range(13)]
    assert kept.losses == 15
    assert log.stats.events == {"authorization": 13, "loss": 1}
    deny(log, 1)
    await idle(log)
    assert kept.losses == log.stats.lost == 15


async def held_up(log: AuditLog, kept: Kept) -> None:
    """Until a first event is being kept, which takes long."""
    kept.open.clear()
    deny(log, 1)
    async with asyncio.timeout(60):  # Only against a hang: how long it takes depends on the machine.
        while not kept.tried:
            await asyncio.sleep(0.001)


async def test_denials_of_one_principal_do_not_crowd_out_others(kept: Kept) -> None:
    """One request of somebody without rights is refused 20,000 things, and somebody guesses passwords meanwhile."""
    log = log_over(kept, queue_max=10_000, queue_bytes=1 << 24)
    await held_up(log, kept)
    mallory = replace(CONTEXT, cluster_id=7, principal="User:mallory")
    for number in range(20_000):
        log.on_decision(mallory, decided(f"x{number}"))
        log.on_attempt(Attempt(mechanism="SASL_SSL/PLAIN", client_host="h", cluster_id=7, message="no"))
    assert log.waiting == 8_750
    assert set(log.stats.lost_by_cluster) == {7}
    # All there is to say of another cluster, and of what was really done in this one.
    admin = replace(mallory, principal="User:admin")
    deny(log, 1, start=1)
    for cluster_id in (1, 7):
        log.on_attempt(
            Attempt(mechanism="SSL", client_host="h", identity=Identity(principal="User:a", cluster_id=cluster_id))
        )
    for context in (CONTEXT, admin):
        await log.audited(ApiKey.DELETE_TOPICS, _deleted)(context, DeleteTopicsRequest(topic_names=["a"]))
    assert set(log.stats.lost_by_cluster) == {7}
    kept.open.set()
    await idle(log)
    told = Counter(
        (event["source"][-1], event["type"].rpartition("/")[2], event["data"].get("result", {}).get("status"))
        for event in kept.events
    )
    assert {fact: count for fact, count in told.items() if fact[0] == "1"} == {
        ("1", "authorization", None): 2, ("1", "authentication", "SUCCESS"): 1, ("1", "request", "SUCCESS"): 1,
    }  # fmt: skip
    assert told["7", "authentication", "SUCCESS"] == told["7", "request", "SUCCESS"] == 1
    assert kept.losses_of == {"lkc-7": log.stats.lost}
    assert told["7", "authorization", None] + told["7", "authentication", "UNAUTHENTICATED"] + kept.losses == 40_000


async def test_floods_of_many_clusters_leave_room_for_successful_changes(kept: Kept) -> None:
    log = log_over(kept, queue_max=1_000)
    await held_up(log, kept)
    for cluster_id in range(2, 12):
        for number in range(300):
            log.on_decision(replace(CONTEXT, cluster_id=cluster_id), decided(f"x{number}"))
    assert log.waiting == 750
    await log.audited(ApiKey.DELETE_TOPICS, _deleted)(CONTEXT, DeleteTopicsRequest(topic_names=["a"]))
    kept.open.set()
    await idle(log)
    assert [event["source"] for event in kept.events if event["type"].endswith("request")] == ["crn:///kafka=lkc-1"]
    assert kept.losses == log.stats.lost == 10 * 300 - 750
    assert kept.losses_of == {f"lkc-{one}": count for one, count in log.stats.lost_by_cluster.items()}


async def test_failed_changes_leave_room_for_successful_ones(kept: Kept) -> None:
    async def failed(context: RequestContext, request: Any) -> Any:
        result = DeletableTopicResult(name="a", error_code=ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        return DeleteTopicsResponse(responses=[result])

    log = log_over(kept, queue_max=80)
    await held_up(log, kept)
    for _ in range(100):
        await log.audited(ApiKey.DELETE_TOPICS, failed)(CONTEXT, DeleteTopicsRequest(topic_names=["a"]))
    assert log.waiting == 70, "seven eighths"
    for _ in range(10):
        await log.audited(ApiKey.DELETE_TOPICS, _deleted)(CONTEXT, DeleteTopicsRequest(topic_names=["a"]))
    assert (log.waiting, log.stats.lost) == (80, 30)
    kept.open.set()
    await idle(log)


async def test_floods_of_five_tenants_cost_a_sixth_none_of_its_denials(kept: Kept) -> None:
    """Whatever fills the queue, and in which order: who has less waiting than others has room."""
    log = log_over(kept, queue_max=600)
    await held_up(log, kept)
    flooders = [replace(CONTEXT, cluster_id=cluster_id) for cluster_id in range(2, 7)]
    for flooder in flooders:
        for number in range(1_000):
            log.on_decision(flooder, decided(f"x{number}"))
    for number in range(1_000):
        log.on_attempt(Attempt(mechanism="SASL_SSL/PLAIN", client_host="h", cluster_id=1, message="no"))
        log.on_decision(flooders[number % 5], decided(f"y{number}"))
    assert log.waiting == 525
    deny(log, 60, start=1)
    assert log.waiting == 525
    kept.open.set()
    await idle(log)
    told = Counter(event["source"][-1] for event in kept.events if event["type"].endswith("authorization"))
    assert told["1"] == 61
    assert min(told[str(one)] for one in range(2, 7)) >= 60  # Those that flood share the rest.
    numbers = [int(event["sequence"]) for event in kept.events if "sequence" in event]
    assert numbers == sorted(numbers)
    assert kept.losses == log.stats.lost == 1 + 5_000 + 2_000 + 60 - len(numbers)


async def test_longer_texts_do_not_make_a_share_larger(kept: Kept) -> None:
    """Shares are of bytes as well as of numbers."""
    log = log_over(kept, queue_max=1_000, queue_bytes=400_000)
    await held_up(log, kept)
    long = "😀" * 512
    for _ in range(1_000):
        log.on_decision(replace(CONTEXT, cluster_id=7, principal=long), decided(long))
    assert log.waiting < 100
    deny(log, 200, start=1)
    kept.open.set()
    await idle(log)
    told = Counter(event["source"][-1] for event in kept.events if event["type"].endswith("authorization"))
    assert told["1"] == 201
    assert told["7"] >= 20


async def test_missing_events_show_as_gaps_in_the_numbers(kept: Kept) -> None:
    log = log_over(kept, queue_max=16)
    await held_up(log, kept)
    deny(log, 20, start=1)
    kept.open.set()
    await idle(log)
    deny(log, 1)
    await log.close()
    numbers = [int(event["sequence"]) for event in kept.events if "sequence" in event]
    assert numbers == [*range(1, 14), 22, 23]
    assert kept.losses == 8
    assert kept.events[-1]["type"] == "io.penstock.audit/end"
    assert len({(event["agent"], event["run"]) for event in kept.events}) == 1


@pytest.mark.parametrize("problem", [InvalidRequest("no"), Unavailable("away")])
async def test_an_end_event_that_cannot_be_stored_does_not_delay_the_stop(kept: Kept, problem: PlatformError) -> None:
    log = log_over(kept)
    deny(log, 1)
    await idle(log)
    kept.failures = [problem] * 1000
    async with asyncio.timeout(2):
        await log.close()
    assert [event["type"].rpartition("/")[2] for event in kept.events] == ["authorization"]


async def test_a_run_without_events_writes_no_end_event(kept: Kept) -> None:
    log = log_over(kept)
    await log.close()
    assert kept.tried == 0


async def test_an_auto_created_topic_is_logged(kept: Kept) -> None:
    log = log_over(kept)
    log.on_topic_created(CONTEXT, "orders", 3, because="auto.create.topics.enable")
    await idle(log)
    (event,) = kept.events
    data = event["data"]
    assert (event["subject"], data["methodName"]) == ("crn:///kafka=lkc-1/topic=orders", "kafka.CreateTopics")
    assert data["authenticationInfo"]["principal"] == "User:eve"
    assert data["request"]["data"] == {"num_partitions": 3, "automatic": "auto.create.topics.enable"}
    assert data["result"]["status"] == "SUCCESS"


async def test_losses_of_many_clusters_are_reported_a_hundred_at_a_time(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "BATCH_LOSSES", 10)
    log = log_over(kept, queue_max=1)  # Three fourths of it are nothing.
    for cluster_id in range(25):
        log.on_decision(replace(CONTEXT, cluster_id=cluster_id), decided("t"))
    log._start_task()
    await idle(log)
    assert [len(batch) for batch in kept.batches] == [10, 10, 5]
    assert kept.losses_of == {f"lkc-{cluster_id}": 1 for cluster_id in range(25)}


async def test_the_queue_is_bounded_in_bytes_too(kept: Kept) -> None:
    """A text takes up to four bytes a character, and clients choose several of each fact."""
    log = log_over(kept, queue_max=1_000, queue_bytes=500_000)
    log.on_decision(CONTEXT, decided("😀" * 512))
    eve = replace(CONTEXT, principal="😀" * 512)
    for _ in range(100):
        log.on_decision(eve, decided("😀" * 512))
    assert 70 < log.waiting < 90
    assert log.waiting + log.stats.lost == 101
    await idle(log)
    assert log._queue.size_bytes == 0
    deny(log, 100)
    assert log.waiting == 100
    await idle(log)
    assert len(names_in(kept)) + kept.losses == 201


async def test_an_unavailable_log_is_retried(kept: Kept) -> None:
    log = log_over(kept)
    kept.failures = [Unavailable("away")] * 4
    deny(log, 2)
    await idle(log)
    assert (kept.tried, names_in(kept), log.stats.lost) == (5, ["t0", "t1"], 0)


async def test_refused_events_are_dropped_and_reported_with_the_next_batch(kept: Kept) -> None:
    log = log_over(kept)
    kept.failures = [InvalidRequest("too large"), InvalidRequest("too large")]
    deny(log, 2)
    await idle(log)
    assert (kept.tried, kept.events, log.stats.lost) == (1, [], 2)
    deny(log, 1)
    await idle(log)
    assert log.stats.lost == 3
    deny(log, 1, start=9)
    await idle(log)
    assert names_in(kept) == ["t9"]
    assert kept.losses == log.stats.lost == 3


async def test_an_internal_error_costs_events_and_not_the_log(kept: Kept) -> None:
    log = log_over(kept)
    kept.failures = [ZeroDivisionError()]
    deny(log, 2)
    await idle(log)
    assert log.stats.lost == 2
    log.on_decision(None, decided("t"))  # type: ignore[arg-type]  # the bug
    log.on_attempt(None)  # type: ignore[arg-type]
    assert log.stats.lost == 4
    deny(log, 1)
    await idle(log)
    assert (names_in(kept), kept.losses) == (["t0"], 4)


async def test_a_fact_that_cannot_be_encoded_costs_that_event_only(kept: Kept) -> None:
    log = log_over(kept)
    deny(log, 1)
    caller = Caller(1, "User:eve", None, "10.0.0.7", 4)
    log._record(Changed(0, caller, ApiKey.ALTER_CLIENT_QUOTAS, THE_CLUSTER, 0, {"x": float("nan")}))  # The bug.
    deny(log, 2, start=1)
    await idle(log)
    assert names_in(kept) == ["t0", "t1", "t2"]
    assert (log.stats.events, log.stats.lost) == ({"authorization": 3, "loss": 1}, 1)
    assert kept.losses == 1


async def test_batches_are_bounded_by_count_and_by_bytes(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "BATCH_EVENTS", 4)
    log = log_over(kept, queue_max=1000)
    deny(log, 10)
    await idle(log)
    assert [len(batch) for batch in kept.batches] == [4, 4, 2]
    monkeypatch.setattr(service, "BATCH_EVENTS", 500)
    monkeypatch.setattr(service, "BATCH_BYTES", 2000)
    kept.batches.clear()
    deny(log, 10)
    await idle(log)
    assert {len(batch) for batch in kept.batches} <= {1, 2, 3}
    assert names_in(kept) == [f"t{number}" for number in range(10)]
    assert log.stats.lost == 0


async def test_a_stop_writes_queued_events_and_captures_no_more(kept: Kept) -> None:
    log = log_over(kept, gather_s=60)
    deny(log, 3)
    await log.close()
    assert names_in(kept) == ["t0", "t1", "t2"]
    deny(log, 1)
    assert (log.stats.lost, log._task) == (1, None)
    await log.close()


@pytest.mark.parametrize("is_away", [True, False])
async def test_a_stop_does_not_wait_for_an_unavailable_log(kept: Kept, is_away: bool) -> None:
    log = log_over(kept)
    if is_away:
        kept.failures = [Unavailable("away")] * 1000
    else:
        kept.open.clear()
    deny(log, 3)
    await asyncio.sleep(0.01)
    deny(log, 2)
    async with asyncio.timeout(2):
        await log.close()
    assert log.stats.lost == 5
    assert log._task is None


async def _deleted(context: RequestContext, request: Any) -> Any:
    request.topic_names = []  # As a guard does.
    return DeleteTopicsResponse(responses=[DeletableTopicResult(name="a")])


async def test_changes_are_logged_as_requested(kept: Kept) -> None:
    log = log_over(kept)
    answer = await log.audited(ApiKey.DELETE_TOPICS, _deleted)(CONTEXT, DeleteTopicsRequest(topic_names=["a"]))
    assert answer.responses[0].name == "a"
    await idle(log)
    (event,) = kept.events
    assert (event["subject"], event["data"]["result"]["status"]) == ("crn:///kafka=lkc-1/topic=a", "SUCCESS")
    assert event["data"]["methodName"] == "kafka.DeleteTopics"
    assert log.audited(ApiKey.METADATA, _deleted) is _deleted


async def test_a_denied_platform_api_is_logged(kept: Kept) -> None:
    log = log_over(kept)

    async def refused(context: RequestContext, request: Any) -> Any:
        return EnterClusterResponse(error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED)

    for key in (ApiKey.ENTER_CLUSTER, ApiKey.DESCRIBE_ENVIRONMENTS):
        await log.audited(key, refused)(CONTEXT, EnterClusterRequest(name="platform"))
    await idle(log)
    assert [event["data"]["methodName"] for event in kept.events] == [
        "kafka.EnterCluster",
        "kafka.DescribeEnvironments",
    ]
    assert not any(event["data"]["authorizationInfo"]["granted"] for event in kept.events)


@pytest.mark.parametrize("is_guarded", [True, False])
async def test_a_denial_by_a_handler_is_logged_once(kept: Kept, is_guarded: bool) -> None:
    """Of what no ACL can allow a guard says nothing; where it does say something, that is enough."""
    log = log_over(kept)

    async def refused(context: RequestContext, request: Any) -> Any:
        if is_guarded:
            log.on_decision(context, replace(decided("kafka-cluster"), resource_type=ResourceType.CLUSTER))
        loggers = {"resource_type": 8, "resource_name": "1", "error_code": ErrorCode.CLUSTER_AUTHORIZATION_FAILED}
        if isinstance(request, DescribeConfigsRequest):
            return DescribeConfigsResponse(results=[DescribeConfigsResult(**loggers)])
        return AlterConfigsResponse(responses=[AlterConfigsResourceResponse(**loggers)])

    resource = AlterConfigsResource(resource_type=8, resource_name="1", configs=[])
    for key, request in (
        (ApiKey.DESCRIBE_CONFIGS, DescribeConfigsRequest()),
        (ApiKey.INCREMENTAL_ALTER_CONFIGS, IncrementalAlterConfigsRequest(resources=[resource])),
        (ApiKey.INCREMENTAL_ALTER_CONFIGS, IncrementalAlterConfigsRequest(resources=[resource], validate_only=True)),
    ):
        await log.audited(key, refused)(CONTEXT, request)
    await idle(log)
    assert [event["type"].rpartition("/")[2] for event in kept.events] == ["authorization"] * 3
    told = [
        (event["data"]["methodName"], event["data"]["authorizationInfo"]["operation"], event["subject"])
        for event in kept.events
    ]
    where = "crn:///kafka=lkc-1"
    assert is_guarded or told == [
        ("kafka.DescribeConfigs", "DescribeConfigs", where), ("kafka.IncrementalAlterConfigs", "AlterConfigs", where),
        ("kafka.IncrementalAlterConfigs", "AlterConfigs", where),
    ]  # fmt: skip


async def test_a_change_whose_client_disconnects_is_logged_nevertheless(kept: Kept) -> None:
    log = log_over(kept)

    async def endless(context: RequestContext, request: Any) -> Any:
        await asyncio.sleep(60)

    work = asyncio.ensure_future(
        log.audited(ApiKey.DELETE_TOPICS, endless)(CONTEXT, DeleteTopicsRequest(topic_names=["a"]))
    )
    await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    await idle(log)
    assert kept.events[0]["data"]["result"]["status"] == "UNKNOWN"

    async def failing(context: RequestContext, request: Any) -> Any:
        raise Unavailable("the database is away")

    with pytest.raises(Unavailable):
        await log.audited(ApiKey.DELETE_TOPICS, failing)(CONTEXT, DeleteTopicsRequest(topic_names=["b"]))
    await idle(log)
    assert kept.events[1]["data"]["result"]["status"] == "UNKNOWN"


async def test_a_request_that_cannot_be_read_is_answered(kept: Kept) -> None:
    log = log_over(kept)
    request = DeleteTopicsRequest(topic_names=["a"])
    request.topics = 7  # type: ignore[assignment]  # the bug
    assert (await log.audited(ApiKey.DELETE_TOPICS, _deleted)(CONTEXT, request)).responses
    assert log.stats.lost == 1


async def test_offset_commits_without_a_member_are_logged_once_per_connection(kept: Kept) -> None:
    log = log_over(kept)
    partition = OffsetCommitResponsePartition(partition_index=0, error_code=0)

    async def committed(context: RequestContext, request: Any) -> Any:
        return OffsetCommitResponse(topics=[OffsetCommitResponseTopic(name="t", partitions=[partition])])

    handle = log.audited(ApiKey.OFFSET_COMMIT, committed)
    other = RequestContext(connection_id=9)
    for context, group in ((CONTEXT, "g"), (CONTEXT, "g"), (CONTEXT, "h"), (other, "g"), (CONTEXT, "g")):
        await handle(context, OffsetCommitRequest(group_id=group, generation_id_or_member_epoch=-1))
    await idle(log)
    assert [event["subject"].rpartition("=")[2] for event in kept.events] == ["g", "h", "g"]

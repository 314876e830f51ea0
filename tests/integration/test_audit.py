"""The audit log of a whole agent: what it costs requests when it is in trouble, and how people read it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, TypeVar

import pytest
from cli_session import Session
from fixtures.waiting import eventually
from fixtures.wire import Wire, batch

from penstock.agent.agent import Agent
from penstock.agent.metrics import exposition
from penstock.agent.tuning import Tuning
from penstock.audit.topic import AUDIT_TOPIC
from penstock.base.context import DEFAULT_CLUSTER_ID, PLATFORM_CLUSTER_ID
from penstock.base.errors import Unavailable
from penstock.base.options import UpOptions
from penstock.log.commits import Commit, CommitEntry
from penstock.testing import Broker
from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState

T = TypeVar("T")
STANDARD = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
QUEUE = 160
WAIT_MAX = 120
"""Of decisions: three fourths of the queue."""
IN_TIME_S = 5.0


class AwayCommits:
    """A commit path whose store does not answer, in front of one that works."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.is_away = False
        self.refused = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def commit_now(self, body: memoryview, entries: Sequence[CommitEntry], heads: Sequence[int], change: Any) -> Any:
        self._ask()
        return self._inner.commit_now(body, entries, heads, change)

    async def commit(
        self, body: memoryview, entries: Sequence[CommitEntry], heads: Sequence[int], change: Any
    ) -> Commit:
        self._ask()
        commit: Commit = await self._inner.commit(body, entries, heads, change)
        return commit

    def _ask(self) -> None:
        if self.is_away:
            self.refused += 1
            raise Unavailable("the store is away")


class Place:
    """An agent on this loop; clients are on threads."""

    def __init__(self, agent: Agent, commits: AwayCommits) -> None:
        self.agent, self.commits = agent, commits

    async def do(self, work: Callable[[Wire], T]) -> T:
        """Something that a client does, who is somebody without any rights."""

        def run() -> T:
            with Wire(f"127.0.0.1:{self.agent.kafka_port}") as wire:
                return work(wire)

        return await asyncio.to_thread(run)

    @property
    def told(self) -> int:
        topic = self.agent.registry.by_name(PLATFORM_CLUSTER_ID, AUDIT_TOPIC)
        return 0 if topic is None else topic.partitions[0].next_offset


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    options = UpOptions(
        data_dir=None, kafka_port=0, settings={"audit.enable": "true", "authorizer.class.name": STANDARD}
    )  # fmt: skip
    agent = Agent(options, tuning=Tuning(audit_queue=QUEUE))
    await agent.start()
    commits = AwayCommits(agent.log.writer._commit_path)
    agent.log.writer._commit_path = commits  # type: ignore[assignment]
    yield Place(agent, commits)
    await agent.stop()


def denied(count: int) -> Callable[[Wire], float]:
    """That many requests that are refused; the longest that one of them took."""

    def work(wire: Wire) -> float:
        slowest = 0.0
        for _ in range(count):
            began = time.monotonic()
            assert wire.produce("payroll", batch(b"x")).error_code == ErrorCode.TOPIC_AUTHORIZATION_FAILED
            slowest = max(slowest, time.monotonic() - began)
        return slowest

    return work


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_log_that_is_away_and_a_queue_that_is_full_cost_no_request_anything(place: Place) -> None:
    audit = place.agent.audit
    assert audit is not None
    await place.do(denied(1))
    await until(lambda: place.told == 1)
    place.commits.is_away = True
    await place.do(denied(1))
    await until(lambda: place.commits.refused > 0)
    # One batch is being tried again and again, the queue gets full, and the rest is lost.
    slowest_s = await place.do(denied(4 * WAIT_MAX))
    assert slowest_s < IN_TIME_S
    assert (place.told, audit.waiting, audit.stats.lost) == (1, WAIT_MAX, 3 * WAIT_MAX)
    place.commits.is_away = False
    await until(lambda: audit.waiting == 0 and audit._task is None)
    lost = audit.stats.lost
    assert audit.stats.events == {"authorization": 2 + WAIT_MAX, "loss": 1}
    assert place.told == sum(audit.stats.events.values())
    await place.do(denied(1))
    await until(lambda: place.told == sum(audit.stats.events.values()) and audit._task is None)
    assert audit.stats.lost == lost


async def test_a_request_that_is_refused_everything_leaves_room_for_others(place: Place) -> None:
    audit = place.agent.audit
    assert audit is not None
    names = [f"unknown-{number}" for number in range(20_000)]

    def delete(wire: Wire) -> set[int]:
        request = DeleteTopicsRequest(topics=[DeleteTopicState(name=name) for name in names])
        return {one.error_code for one in wire.call(ApiKey.DELETE_TOPICS, 6, request).responses}

    assert await place.do(delete) == {ErrorCode.TOPIC_AUTHORIZATION_FAILED}
    # The log takes all the while what waits: less at a time than there are.
    assert 0 < audit.stats.lost_by_cluster[DEFAULT_CLUSTER_ID] == audit.stats.lost
    assert audit.waiting <= WAIT_MAX
    await until(lambda: audit._task is None)
    assert (
        f'penstock_audit_events_lost_total{{cluster="default"}} {audit.stats.lost}.0'
        in exposition(place.agent).decode()
    )
    assert audit.stats.events["authorization"] + audit.stats.lost == len(names)


async def test_silence_writes_nothing(place: Place) -> None:
    commits = place.agent.log.writer.stats.commits
    await place.do(lambda wire: wire.metadata([]))
    await asyncio.sleep(0.2)
    assert place.agent.log.writer.stats.commits == commits
    assert place.agent.registry.by_name(PLATFORM_CLUSTER_ID, AUDIT_TOPIC) is None
    assert place.agent.audit is not None
    assert place.agent.audit._task is None


async def test_a_stop_leaves_nothing_untold(tmp_path: Any) -> None:
    options = UpOptions(data_dir=tmp_path, kafka_port=0, durability="process", settings={"audit.enable": "true"})
    agent = Agent(options)
    await agent.start()

    def create() -> None:
        with Wire(f"127.0.0.1:{agent.kafka_port}") as wire:
            wire.create_topic("last")

    await asyncio.to_thread(create)
    await agent.stop()
    again = Agent(options)
    await again.start()
    topic = again.registry.by_name(PLATFORM_CLUSTER_ID, AUDIT_TOPIC)
    assert topic is not None
    assert topic.partitions[0].next_offset == 2  # What was made, and that this was all.
    await again.stop()
    assert topic.partitions[0].next_offset == 2


# ---- reading -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Broker(settings={"audit.enable": "true", "auto.create.topics.enable": "false"}) as kafka:
        yield Session(kafka.bootstrap_servers)


def _tail(session: Session, *words: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in session.run("audit", "tail", *words, "-o", "json").stdout.splitlines()]


def _topics(session: Session, *words: str) -> list[dict[str, Any]]:
    """What is told of topics. Whoever reads is told of as well."""
    return [event for event in _tail(session, *words) if event["data"]["methodName"].endswith("Topics")]


def test_an_audit_log_that_is_not_there(session: Session) -> None:
    with Broker() as silent:
        result = Session(silent.bootstrap_servers).run("audit", "tail", code=1)
    assert "audit.enable" in result.output


def test_tail(session: Session) -> None:
    session.run("topic", "create", "orders")
    session.run("topic", "create", "orders", code=1)
    eventually(
        lambda: AUDIT_TOPIC in {row["name"] for row in session.json("topic", "list", "--cluster", "platform")},
        what="the topic",
    )
    (made, failed) = eventually(lambda: len(events := _topics(session)) == 2 and events, what="two events")
    assert made["subject"].endswith("/topic=orders")
    assert (made["data"]["result"]["status"], failed["data"]["result"]["status"]) == ("SUCCESS", "FAILURE")
    lines = session.run("audit", "tail").stdout.splitlines()
    assert lines[0].split() == ["TIME", "OUTCOME", "PRINCIPAL", "ADDRESS", "METHOD", "WHAT"]
    told = [line.split()[1:] for line in lines if "Topics" in line]
    assert told == [
        ["done", "User:ANONYMOUS", "127.0.0.1", "CreateTopics", "topic=orders"],
        ["failed", "User:ANONYMOUS", "127.0.0.1", "CreateTopics", "topic=orders:", "TOPIC_ALREADY_EXISTS"],
    ]
    assert ["done", "User:ANONYMOUS", "127.0.0.1", "EnterCluster", "virtual-cluster=platform"] in [
        line.split()[1:] for line in lines
    ]
    assert session.run("audit", "tail", "--since", "start").stderr == ""
    assert len(_tail(session, "--since", "start", "-n", "1")) == 1
    assert _tail(session, "--denied") == []
    assert _tail(session, "--principal", "alice") == []
    assert len(_topics(session, "--principal", "ANONYMOUS")) == 2
    assert _tail(session, "--since", "2100-01-01") == []
    assert "--since" in session.run("audit", "tail", "--since", "yesterday", code=2).output
    assert session.run("audit", "tail", "-n", "1", "-o", "yaml").stdout.startswith("---\nspecversion:")


def test_following(session: Session) -> None:
    process = session.start("audit", "tail", "-f", "--since", "start", "-o", "json")
    assert process.stdout is not None
    try:
        session.run("topic", "create", "later")
        session.run("topic", "delete", "later", "--yes")
        told: list[str] = []
        while told[-2:] != ["kafka.CreateTopics", "kafka.DeleteTopics"]:
            event = json.loads(process.stdout.readline())
            if event["subject"].endswith("/topic=later"):
                told.append(event["data"]["methodName"])
    finally:
        process.kill()
        process.communicate()

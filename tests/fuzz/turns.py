"""How long a loop is held in one turn: an agent on a loop of its own that measures itself, and clients beside it.

python tests/fuzz/turns.py [API ...]    what the widest requests of every API take, the worst at the end
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, NamedTuple

from fixtures.raw_client import ConnectionClosed, RawClient
from fixtures.wire import Wire
from wide_requests import GROUP, MEMBER, WIDE, Maker, Wide, more_of

from penstock.agent.agent import Agent
from penstock.agent.main import share_the_interpreter
from penstock.agent.turns import TurnLoop
from penstock.authorization.settings import STANDARD_AUTHORIZER
from penstock.base.options import UpOptions
from penstock.log.topics import NewTopic
from penstock.wire.api_keys import ApiKey as K

ELEMENTS = 100_000
PARTITIONS = 10_000
SETTINGS = {"num.partitions": "1", "authorizer.class.name": STANDARD_AUTHORIZER, "audit.enable": "true"}
SAMPLE_EVERY_S = 0.004


class Turn(NamedTuple):
    """The longest turn there was."""

    cpu_s: float = 0.0
    """Of the loop's own thread: whatever else the machine does, and other threads, is not in it."""
    clock_s: float = 0.0
    where: str = ""


class MeasuredLoop(TurnLoop):
    """Notes how long its turns are."""

    def __init__(self) -> None:
        super().__init__()
        self.thread = threading.get_ident()
        self.longest = Turn()
        self.slowest_s = 0.0
        self.turn = 0
        self.samples: dict[int, str] = {}
        self.since: float | None = None
        select = self._selector.select  # type: ignore[attr-defined]

        def measured(timeout: float | None = None) -> Any:
            self.since = None
            found = select(timeout)
            self.since = time.perf_counter()
            return found

        self._selector.select = measured  # type: ignore[attr-defined]

    def _run_once(self) -> None:
        began = time.thread_time()
        self.turn += 1
        super()._run_once()  # type: ignore[misc]
        cpu_s, clock_s = time.thread_time() - began, time.perf_counter() - (self.since or time.perf_counter())
        self.slowest_s = max(self.slowest_s, clock_s)
        if cpu_s > self.longest.cpu_s:
            self.longest = Turn(cpu_s, clock_s, self.samples.get(self.turn, ""))

    def forget(self) -> None:
        """Begin anew."""
        self.longest, self.slowest_s = Turn(), 0.0
        self.samples.clear()

    def watch(self, least_s: float) -> None:
        """Note, from another thread, what a long turn is at."""
        while self.thread:
            time.sleep(SAMPLE_EVERY_S)
            since, turn = self.since, self.turn
            if since is not None and time.perf_counter() - since > least_s and turn not in self.samples:
                frame = sys._current_frames().get(self.thread)
                ours = [one for one in traceback.extract_stack(frame) if "/penstock/" in one.filename]
                if turn == self.turn and ours:
                    self.samples[turn] = " < ".join(f"{one.name}:{one.lineno}" for one in reversed(ours[-3:]))


class MeasuredAgent:
    """An agent in memory on such a loop."""

    def __init__(self, settings: dict[str, str]) -> None:
        self._settings = settings
        self.bootstrap: Future[str] = Future()
        self.loop: MeasuredLoop
        self.agent: Agent
        self._thread = threading.Thread(target=self._run, name="measured", daemon=True)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=MeasuredLoop) as runner:
                runner.run(self._serve())
        except BaseException as problem:
            if not self.bootstrap.done():
                self.bootstrap.set_exception(problem)
            raise

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, MeasuredLoop)
        self.loop, self._stopping = loop, asyncio.Event()
        options = UpOptions(
            data_dir=None, kafka_port=0, http_port=0, client_metrics="prometheus", settings=self._settings
        )
        agent = self.agent = Agent(options)
        await agent.start()
        await agent.topics.create(1, [NewTopic(name=WIDE, partition_count=PARTITIONS)])
        self.bootstrap.set_result(f"127.0.0.1:{agent.kafka_port}")
        await self._stopping.wait()
        await agent.stop()

    def start(self) -> str:
        """Where it is reached."""
        self._thread.start()
        return self.bootstrap.result(timeout=60)

    def stop(self) -> None:
        """End it."""
        self.loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(timeout=60)
        self.loop.thread = 0
        assert not self._thread.is_alive()

    @property
    def served(self) -> dict[int, range]:
        """The versions of all APIs."""
        return {key: api.versions for key, api in self.agent.requests.dispatcher.table.items()}


@contextmanager
def measured_agent(**settings: str) -> Iterator[MeasuredAgent]:
    """One that is there for a while, without a collector of garbage that comes when it likes."""
    agent = MeasuredAgent(SETTINGS | {name.replace("_", "."): value for name, value in settings.items()})
    agent.start()
    was_enabled, interval_s = gc.isenabled(), sys.getswitchinterval()
    gc.disable()
    share_the_interpreter()
    try:
        yield agent
    finally:
        agent.stop()
        sys.setswitchinterval(interval_s)
        if was_enabled:
            gc.enable()
        gc.collect()


def maker(agent: MeasuredAgent) -> Maker:
    """For what the agent has, a member of a group among it."""
    from penstock.wire.messages import consumer_group_heartbeat as beating

    topic = agent.agent.registry.by_name(1, WIDE)
    assert topic is not None
    with Wire(agent.bootstrap.result()) as wire:
        asked = beating.ConsumerGroupHeartbeatRequest(
            group_id=GROUP, member_id=MEMBER, member_epoch=0, rebalance_timeout_ms=60_000,
            subscribed_topic_names=[WIDE], topic_partitions=[],
        )  # fmt: skip
        epoch = wire.call(K.CONSUMER_GROUP_HEARTBEAT, 1, asked).member_epoch
    return Maker(topic.topic_id, epoch)


class Asked(NamedTuple):
    """What a request took."""

    turn: Turn
    slowest_s: float
    whole_s: float
    sent_bytes: int
    got_bytes: int


def ask(agent: MeasuredAgent, frame: bytes) -> Asked:
    """Send a request, and measure until it is answered, or its connection closed."""
    with RawClient(agent.bootstrap.result(), timeout_s=120) as client:
        time.sleep(0.005)
        agent.loop.forget()
        began, got = time.perf_counter(), 0
        try:
            client.send_bytes(frame)
            got = len(client.receive_frame())
        except ConnectionClosed:
            got = -1
        whole_s = time.perf_counter() - began
    time.sleep(0.02)  # What is let go of, and the end of the connection.
    return Asked(agent.loop.longest, agent.loop.slowest_s, whole_s, len(frame), got)


def main(names: list[str]) -> None:
    """Print what all of them take."""
    worst: list[tuple[float, str]] = []
    denied = {"allow_everyone_if_no_acl_found": "false"}
    for who, settings in (("anybody", {"allow_everyone_if_no_acl_found": "true"}), ("stranger", denied)):
        with measured_agent(**settings) as agent:
            threading.Thread(target=agent.loop.watch, args=(0.012,), daemon=True).start()
            makes = maker(agent)
            for wide in more_of(agent.served):
                if names and K(wide.key).name.lower() not in names:
                    continue
                line = report(agent, makes, wide, who)
                print(line[1], flush=True)
                worst.append(line)
    print("\nthe longest turns")
    for _, line in sorted(worst, reverse=True)[:40]:
        print(line)


def report(agent: MeasuredAgent, makes: Maker, wide: Wide, who: str) -> tuple[float, str]:
    """One request, by the longest turn and by the clock."""
    frame = makes.frame(wide, ELEMENTS)
    gc.collect()
    asked = ask(agent, frame)
    text = (
        f"{who:8s} {wide!s:72s} {asked.sent_bytes / 1e6:5.2f} MB -> {asked.got_bytes / 1e6:6.2f} MB"
        f"  whole {asked.whole_s * 1000:7.0f} ms  turn {asked.turn.cpu_s * 1000:6.1f} ms"
        f"  clock {asked.slowest_s * 1000:6.1f} ms  {asked.turn.where}"
    )
    return asked.turn.cpu_s, text


if __name__ == "__main__":
    main([name.lower() for name in sys.argv[1:]])

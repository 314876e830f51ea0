"""A host of agents: one agent process after the other, over stores that survive them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING

from fixtures.sim_loop import Host, SimLoop
from simulation.agents import AgentEnvironment, SimAgent
from simulation.faults import NONE, FaultyKeyService, FaultyObjects, FaultyWal, SharedWal
from simulation.links import Link

from penstock.base.errors import CorruptData, PlatformError
from penstock.base.randomness import SeededRandomness
from penstock.keys.port import KeyService
from penstock.metadata.inline import InlineDatabase

if TYPE_CHECKING:
    from simulation.world import World

START_MS = 1_700_000_000_000


class SimClock:
    """A clock of the simulated world: it runs too fast or too slow, and is wrong until somebody sets it anew."""

    def __init__(self, loop: SimLoop, *, offset_ms: int = 0, drift: float = 0.0) -> None:
        self.loop, self.offset_ms, self.rate = loop, offset_ms, 1.0 + drift

    def now_ms(self) -> int:
        """Wall clock."""
        return START_MS + self.offset_ms + int(self.loop.time() * self.rate * 1000)

    def monotonic(self) -> float:
        """Seconds. Setting the clock does not change them."""
        return self.loop.time() * self.rate


class SimScheduler:
    """Callbacks at a time of an agent's own clock."""

    def __init__(self, clock: SimClock) -> None:
        self._clock = clock

    def time(self) -> float:
        """Seconds."""
        return self._clock.monotonic()

    def call_at(self, when: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Call back at that time."""
        return self._clock.loop.call_at(when / self._clock.rate, callback)


class Place:
    """One of the machines that run agents."""

    def __init__(self, world: World, number: int) -> None:
        self._world, self.number = world, number
        self.agent: SimAgent | None = None
        """The agent that is up, or None while there is none."""
        self.up = asyncio.Event()
        self.links: list[Link] = []
        self.kill: Callable[[], None] = lambda: None
        """Ends the life that is going on, at once."""
        self.is_retired = False
        """Whether the life that is going on is the last one here."""
        self.clock: SimClock | None = None
        """Of the life that is going on."""
        self._life = 0

    def set_clock(self) -> None:
        """Somebody sets the clock, to a time that is wrong as well."""
        if self.clock is None:
            return
        offset_ms = self._offset_ms()
        self._world.marks.reach("clock set back" if offset_ms < self.clock.offset_ms else "clock set forward")
        self.clock.offset_ms = offset_ms

    def _offset_ms(self) -> int:
        skew_ms = self._world.skew_ms
        return int(self._world.source.between(-skew_ms, skew_ms))

    async def supervise(self) -> None:
        """Start the agent, again and again."""
        world = self._world
        while not self.is_retired:
            self._life += 1
            host = Host(f"agent-{self.number}/{self._life}")
            died: asyncio.Future[None] = world.loop.create_future()
            agent = self._new_agent(host, died)
            if await self._start(agent, died):
                agent.writer.on_broken = lambda died=died: (
                    died.done()
                    or died.set_exception(  # type: ignore[misc]
                        AssertionError("the writer met a bug")
                    )
                )
                self.agent = agent
                self.up.set()
                await died
            self.up.clear()
            self.agent = None
            for link in self.links:
                link.lose()
            self.links.clear()
            await asyncio.sleep(world.source.between(0.01, 0.5))

    def retire(self) -> None:
        """The last life here ends. Its clients notice."""
        for link in self.links:
            link.lose()
        self.kill()

    async def crash(self) -> None:
        """Kill the agent now, wait until the next one is up."""
        self._world.marks.reach("killed")
        self.kill()
        while self.agent is not None:
            await asyncio.sleep(0)
        await self.up.wait()

    def _new_agent(self, host: Host, died: asyncio.Future[None]) -> SimAgent:
        world, source = self._world, self._world.source
        database = world.new_database()

        def die() -> None:
            if host.alive:
                host.alive = False
                database.crash()
                # The news reach the rest of the world after what is happening right now.
                world.loop.call_soon(died.set_result, None, context=Context())
                world.loop.mark(host.name.encode())

        def database_fault() -> str | None:
            kind = source.write("database")
            if kind in ("crash before", "crash after"):
                die()
            return None if kind is None else kind.removeprefix("crash ")

        database.faults = database_fault  # type: ignore[assignment]
        database.delay_s = source.delay_s
        self.kill = die
        wal = (SharedWal if world.is_shared else FaultyWal)(world.wal_store, source, die, world.guards)
        self.clock = SimClock(
            world.loop, offset_ms=self._offset_ms(), drift=source.between(-world.drift, world.drift)
        )  # fmt: skip
        return SimAgent(self._surroundings(host, database, wal, self.clock, die))

    def _surroundings(
        self, host: Host, database: InlineDatabase, wal: FaultyWal, clock: SimClock, die: Callable[[], None]
    ) -> AgentEnvironment:
        world = self._world
        key_service: KeyService | None = world.key_service
        if key_service is not None and world.has_tenants:
            key_service = FaultyKeyService(key_service, world.source, die)
        return AgentEnvironment(
            host=host, database=database, wal=wal, clock=clock, scheduler=SimScheduler(clock),
            objects=FaultyObjects(world.object_store, world.source, die, world.guards),
            randomness=SeededRandomness(f"{world.seed}:ids:{host.name}"), inline=world.inline,
            settings=world.settings, upkeep=world.upkeep, agent_id=self.number, epoch=world.epoch,
            key_service=key_service, has_tenants=world.has_tenants,
        )  # fmt: skip

    async def _start(self, agent: SimAgent, died: asyncio.Future[None]) -> bool:
        world, faults = self._world, self._world.faults
        task = world.loop.create_task(agent.start(), context=agent.host.context.copy())
        ended = world.loop.create_future()
        task.add_done_callback(lambda _: ended.done() or ended.set_result(None), context=Context())
        died.add_done_callback(lambda _: ended.done() or ended.set_result(None))
        await ended
        if died.done():
            world.marks.reach("died while starting")
            return False
        problem = task.exception()
        if problem is None:
            if agent.found_letters:
                world.marks.reach("died between a letter and its record")
            return True
        if not isinstance(problem, PlatformError) or isinstance(problem, CorruptData) or faults == NONE:
            raise problem
        world.marks.reach("start failed")
        self.kill()
        return False

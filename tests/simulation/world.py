"""A small world in one event loop: an agent that dies and comes back, stores that survive it, clients, faults.

Everything random in it comes from streams seeded by the run's seed, one per purpose: schedule (in the loop), faults,
workload, ids. So a run is a function of its seed, and one more draw of a fault does not change the workload.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import TypeVar

from fixtures.sim_loop import Host, SimLoop
from simulation.agents import SimAgent, Surroundings, UpkeepPlan
from simulation.faults import NONE, Faults, FaultSource, FaultyObjects, FaultyWal
from simulation.guards import Guards
from simulation.history import History
from simulation.links import ConnectionLost, Link
from simulation.marks import Marks
from simulation.witness import Witness

from penstock.base.errors import CorruptData, PlatformError
from penstock.base.randomness import SeededRandomness
from penstock.metadata.inline import InlineDatabase
from penstock.metadata.migrate import migrate
from penstock.storage.memory import MemoryObjectStore, MemoryWal

T = TypeVar("T")

START_MS = 1_700_000_000_000
GRACE_MS = 3_000
"""How long dead objects live on in this world."""


class SimClock:
    """A clock of the simulated world, off by a little and drifting."""

    def __init__(self, loop: SimLoop, *, offset_ms: int = 0, drift: float = 0.0) -> None:
        self._loop, self._offset_ms, self._rate = loop, offset_ms, 1.0 + drift

    def now_ms(self) -> int:
        """Wall clock."""
        return START_MS + self._offset_ms + int(self._loop.time() * self._rate * 1000)

    def monotonic(self) -> float:
        """Seconds."""
        return self._loop.time() * self._rate


class World:
    """One run."""

    def __init__(self, seed: int | str, loop: SimLoop) -> None:
        self.seed, self.loop = seed, loop
        self.marks = Marks()
        self.source = FaultSource(seed, self.marks)
        self.workload = random.Random(f"{seed}:workload")
        self.clock = SimClock(loop)
        self.history = History()
        self.settings = {"group.initial.rebalance.delay.ms": "0"}
        self.inline = False
        self.wal_store = MemoryWal(256 * 1024 * 1024)
        self.object_store = MemoryObjectStore(clock=self.clock)
        self.upkeep: UpkeepPlan | None = None
        self.guards = Guards(lambda: self.database, self.clock, GRACE_MS)
        self.witness = Witness()
        self.agent: SimAgent | None = None
        """The agent that is up, or None while there is none."""
        self.on_agent: Callable[[SimAgent], None] = lambda agent: None
        """Called with each agent before it starts."""
        self._database: InlineDatabase | None = None
        self._links: list[Link] = []
        self._connection_id = 0
        self._life = 0
        self._up = asyncio.Event()
        self.supervisor: asyncio.Task[None] | None = None
        """Ends only when something is wrong with the program."""

    @property
    def faults(self) -> Faults:
        """What goes wrong from now on."""
        return self.source.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self.source.faults = faults

    async def open(self) -> None:
        """Prepare the stores and start the agent, while nothing goes wrong yet."""
        database = InlineDatabase()
        await migrate(database, self.clock)
        await self.witness.install(database)
        database.crash()
        self._database = database
        self.supervisor = self.loop.create_task(self._supervise())
        await self._up.wait()

    # ---- lives of the agent ----------------------------------------------------------------------------------------

    async def _supervise(self) -> None:
        """Start the agent, again and again."""
        while True:
            self._life += 1
            host = Host(f"agent/{self._life}")
            died: asyncio.Future[None] = self.loop.create_future()
            agent = self._new_agent(host, died)
            self.on_agent(agent)
            if await self._start(agent, died):
                self.agent = agent
                self._up.set()
                await died
            self._up.clear()
            self.agent = None
            for link in self._links:
                link.lose()
            self._links.clear()
            await asyncio.sleep(self.source.between(0.01, 0.5))

    def _new_agent(self, host: Host, died: asyncio.Future[None]) -> SimAgent:
        assert self._database is not None
        database = self._database = self._database.reopen()

        def die() -> None:
            if host.alive:
                host.alive = False
                database.crash()
                # The news reach the rest of the world after what is happening right now.
                self.loop.call_soon(died.set_result, None, context=self._outside)
                self.loop.mark(b"died")

        def database_fault() -> str | None:
            kind = self.source.write("database")
            if kind in ("crash before", "crash after"):
                die()
            return None if kind is None else kind.removeprefix("crash ")

        database.faults = database_fault  # type: ignore[assignment]
        database.delay_s = self.source.delay_s
        clock = SimClock(
            self.loop, offset_ms=int(self.source.between(-200, 200)), drift=self.source.between(-0.01, 0.01)
        )
        self.kill = die
        return SimAgent(
            Surroundings(
                host=host, database=database, wal=FaultyWal(self.wal_store, self.source, die, self.guards),
                objects=FaultyObjects(self.object_store, self.source, die, self.guards), clock=clock,
                randomness=SeededRandomness(f"{self.seed}:ids:{self._life}"), inline=self.inline,
                settings=self.settings, upkeep=self.upkeep,
            )
        )  # fmt: skip

    async def _start(self, agent: SimAgent, died: asyncio.Future[None]) -> bool:
        faults = self.faults
        task = self.loop.create_task(agent.start(), context=agent.host.context.copy())
        ended = self.loop.create_future()
        task.add_done_callback(lambda _: ended.done() or ended.set_result(None), context=self._outside)
        died.add_done_callback(lambda _: ended.done() or ended.set_result(None))
        await ended
        if died.done():
            self.marks.reach("died while starting")
            return False
        problem = task.exception()
        if problem is None:
            return True
        if not isinstance(problem, PlatformError) or isinstance(problem, CorruptData) or faults == NONE:
            raise problem
        self.marks.reach("start failed")
        self.kill()
        return False

    @property
    def _outside(self) -> Context:
        """The context of what is not on any host."""
        return Context()

    async def heal(self) -> None:
        """From now on nothing goes wrong; wait until the agent is up."""
        self.faults = NONE
        await self._up.wait()

    async def crash(self) -> None:
        """Kill the agent now, wait until the next one is up."""
        self.marks.reach("killed")
        self.kill()
        while self.agent is not None:
            await asyncio.sleep(0)
        await self._up.wait()

    @property
    def database(self) -> InlineDatabase:
        """The database, for looking into."""
        assert self._database is not None
        return self._database

    # ---- for clients -----------------------------------------------------------------------------------------------

    async def connect(self, client_id: str) -> Link:
        """A connection to the agent; waits until there is one."""
        await asyncio.sleep(self.source.transit_s())
        while self.agent is None:
            await asyncio.sleep(self.source.between(0.01, 0.1))
        self._connection_id += 1
        link = Link(self.agent, self.source, client_id, self._connection_id)
        self._links.append(link)
        return link

    async def eventually(self, attempt: Callable[[], Awaitable[T | None]], what: str, within_s: float = 600.0) -> T:
        """Try until something comes of it."""
        deadline = self.loop.time() + within_s
        while self.loop.time() < deadline:
            try:
                result = await attempt()
            except ConnectionLost:
                result = None
            if result is not None:
                return result
            await asyncio.sleep(self.source.between(0.01, 0.2))
        raise AssertionError(f"{what} did not happen within {within_s} simulated seconds")

"""A small world in one event loop: agents that die and come back, stores that survive them, clients, faults.

Everything random in it comes from streams seeded by the run's seed, one per purpose: schedule (in the loop), faults,
workload, ids. So a run is a function of its seed, and one more draw of a fault does not change the workload.

Embedded, there is one agent, and the database is its own. Shared, there are several on one database, each with its
own connection to it, and one write-ahead log.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from fixtures.key_services import FakeKeyService
from fixtures.sim_loop import SimLoop
from fixtures.tables import have_tables
from simulation.agents import SimAgent, UpkeepPlan
from simulation.faults import NONE, Faults, FaultSource
from simulation.guards import Guards
from simulation.history import History
from simulation.links import ConnectionLost, Link
from simulation.marks import Marks
from simulation.places import Place, SimClock
from simulation.witness import Witness

from penstock.base.context import DEFAULT_CLUSTER_ID
from penstock.base.errors import PlatformError
from penstock.log.commit_sql import take_over
from penstock.metadata.inline import InlineDatabase
from penstock.storage.memory import MemoryObjectStore, MemoryWal

T = TypeVar("T")

OFFSET_MS, DRIFT = 200, 0.01
WRONG_MS, WRONG_DRIFT = 90_000, 0.05
"""The same where nothing but the clock of an agent itself counts: far more than any session lasts."""
GRACE_MS = 3_000
"""How long dead objects live on in this world."""


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
        self.inline = self.is_shared = False
        self.skew_ms, self.drift = OFFSET_MS, DRIFT
        """How wrong the clocks of agents are, and by how much too fast or too slow they run."""
        self.epoch: int | None = None
        """Of the shard, where agents share it."""
        self.wal_store = MemoryWal(256 * 1024 * 1024)
        self.object_store = MemoryObjectStore(clock=self.clock)
        self.upkeep: UpkeepPlan | None = None
        self.key_service: FakeKeyService | None = None
        """Who wraps the keys that everything is sealed by; None: nothing is sealed."""
        self.has_tenants = False
        """Whether virtual clusters are made and deleted. Then the key service fails like everything else."""
        self.database = InlineDatabase()
        """What all agents' databases are a view of; for looking into."""
        self.guards = Guards(lambda: self.database, self.clock, GRACE_MS)
        self.witness = Witness()
        self.places: list[Place] = []
        self.supervisors: list[asyncio.Task[None]] = []
        """They end only when something is wrong with the program."""
        self._connection_id = 0

    @property
    def faults(self) -> Faults:
        """What goes wrong from now on."""
        return self.source.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self.source.faults = faults

    @property
    def agent(self) -> SimAgent | None:
        """The agent of the first place, or None while there is none."""
        return self.places[0].agent

    async def open(self) -> None:
        """Prepare the stores and start an agent, while nothing goes wrong yet."""
        await have_tables(self.database, self.clock)
        await self.witness.install(self.database)
        if self.is_shared:
            self.epoch = await self.database.transaction(lambda: take_over(1))
        await self.add_agent()

    async def add_agent(self, number: int | None = None) -> None:
        """Start an agent at another place."""
        place = Place(self, len(self.places) + 1 if number is None else number)
        self.places.append(place)
        self.supervisors.append(self.loop.create_task(place.supervise()))
        await place.up.wait()

    async def take_over(self) -> Place:
        """Start another agent in the place of the one there is, which lives on without knowing; that one's place."""
        (old,) = self.places
        old.is_retired = True
        while True:
            try:
                self.epoch = await self.database.transaction(lambda: take_over(1))
                break
            except PlatformError:
                await asyncio.sleep(0.01)
        self.places.clear()
        await self.add_agent(number=old.number + 1)
        return old

    def new_database(self) -> InlineDatabase:
        """Another process' way to the database."""
        database = InlineDatabase()
        database._connection.close()
        database._connection = self.database._connection
        return database

    async def heal(self) -> None:
        """From now on nothing goes wrong; wait until all agents are up."""
        self.faults = NONE
        for place in self.places:
            await place.up.wait()

    def set_a_clock(self) -> None:
        """The clock of some agent is set while it works."""
        self.source.choose(self.places).set_clock()

    async def crash(self) -> None:
        """Kill an agent now, wait until the next one is up there."""
        place = self.places[0] if len(self.places) == 1 else self.workload.choice(self.places)
        await place.crash()

    # ---- for clients -----------------------------------------------------------------------------------------------

    async def connect(self, client_id: str, place: Place | None = None, cluster_id: int = DEFAULT_CLUSTER_ID) -> Link:
        """A connection to the agent of a place, or of any, in a virtual cluster; waits until there is an agent."""
        await asyncio.sleep(self.source.transit_s())
        chosen = place or self.source.choose(self.places)
        while chosen.agent is None:
            await asyncio.sleep(self.source.between(0.01, 0.1))
            chosen = place or self.source.choose(self.places)
        if not chosen.agent.admits(cluster_id):
            raise ConnectionLost
        self._connection_id += 1
        link = Link(chosen.agent, self.source, client_id, self._connection_id, cluster_id)
        chosen.links.append(link)
        if cluster_id != DEFAULT_CLUSTER_ID:
            chosen.agent.server.enter(cluster_id, link)
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

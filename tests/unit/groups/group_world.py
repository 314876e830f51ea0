"""A group coordinator with real SQL on an in-memory SQLite, time moved by hand, and faults of the database."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Callable

from fixtures.tables import copy_tables

from penstock.base.context import RequestContext
from penstock.base.errors import OutcomeUnknown, Unavailable
from penstock.base.randomness import SeededRandomness
from penstock.coordination.leases import LeaseHolder
from penstock.groups.handlers import CoordinatorEndpoint, GroupHandlers
from penstock.groups.offset_handlers import OffsetHandlers
from penstock.groups.service import GroupService
from penstock.groups.settings import GroupSettings

ORDERS = bytes([7]) * 16
PAYMENTS = bytes([9]) * 16


class SqlScripts:
    """Runs scripts on one connection, all or nothing. `faults` go wrong one by one."""

    dialect = "sqlite"

    def __init__(self) -> None:
        self._connection = sqlite3.connect(":memory:", isolation_level=None)
        copy_tables(self._connection)
        self.faults: list[str] = []
        self.transactions = self.reads = 0

    async def transaction(self, script: Callable):
        await asyncio.sleep(0)
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "before":
            raise Unavailable("the database is away")
        self.transactions += 1
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            result = self._run(script())
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("ROLLBACK" if fault == "lost" else "COMMIT")
        if fault in ("lost", "after"):
            raise OutcomeUnknown("the answer was lost")
        return result

    async def read(self, script: Callable):
        await asyncio.sleep(0)
        if self.faults == ["unread"]:
            raise Unavailable("the database is away")
        self.reads += 1
        return self._run(script())

    def _run(self, script):
        try:
            sql, args = next(script)
            while True:
                sql = re.sub(r"\$(\d+)", r"?\1", sql)
                sql, args = script.send(self._connection.execute(sql, tuple(args)).fetchall())
        except StopIteration as done:
            return done.value


class HandClock:
    """Wall clock and alarms in one, moved by hand."""

    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0
        self._scheduler: list[_HandAlarm] = []

    def now_ms(self) -> int:
        return round(self.now_s * 1000)

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        return self.now_s

    def call_at(self, when: float, callback: Callable[[], None]) -> _HandAlarm:
        alarm = _HandAlarm(when, callback)
        self._scheduler.append(alarm)
        return alarm

    def pending(self) -> int:
        return sum(not alarm.cancelled for alarm in self._scheduler)

    async def pass_ms(self, delay_ms: int) -> None:
        """Let time pass, firing what is due in order."""
        end_s = self.now_s + delay_ms / 1000
        await settle()
        while due := [alarm for alarm in self._scheduler if not alarm.cancelled and alarm.when <= end_s]:
            alarm = min(due, key=lambda alarm: alarm.when)
            self._scheduler = [other for other in self._scheduler if other is not alarm and not other.cancelled]
            self.now_s = max(self.now_s, alarm.when)
            alarm.callback()
            await settle()
        self.now_s = end_s


class _HandAlarm:
    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when, self.callback, self.cancelled = when, callback, False

    def cancel(self) -> None:
        self.cancelled = True


async def settle() -> None:
    """Let everything run that does not wait for time."""
    for _ in range(60):
        await asyncio.sleep(0)


class FakeTopics:
    """Two topics."""

    def __init__(self) -> None:
        self.known = {ORDERS: "orders", PAYMENTS: "payments"}

    def names(self, cluster_id: int) -> list[str]:
        return list(self.known.values())

    def topic_id(self, cluster_id: int, name: str) -> bytes | None:
        return next((topic_id for topic_id, known in self.known.items() if known == name), None)

    def topic_name(self, cluster_id: int, topic_id: bytes) -> str | None:
        return self.known.get(topic_id)

    def partition_count(self, cluster_id: int, topic_id: bytes) -> int | None:
        return 4 if topic_id in self.known else None


class Here:
    """One agent coordinates everything."""

    def coordinator(self, context: RequestContext, key_type: int, key: str) -> CoordinatorEndpoint:
        return CoordinatorEndpoint(1, "localhost", 9092)


class World:
    """A database and the processes that use it, one after the other or at the same time."""

    def __init__(self, settings: GroupSettings | None = None) -> None:
        self.settings = settings or GroupSettings()
        self.database, self.clock, self.topics = SqlScripts(), HandClock(), FakeTopics()
        self._started = 0

    async def start(self) -> Process:
        self._started += 1
        service = GroupService(
            database=self.database,
            topics=self.topics,
            settings=self.settings,
            holder=LeaseHolder(name=f"agent-{self._started}"),
            clock=self.clock,
            scheduler=self.clock,
            randomness=SeededRandomness(f"process {self._started}"),
        )
        await service.open()
        return Process(self, service)


class Process:
    """One coordinator, asked as clients ask."""

    def __init__(self, world: World, service: GroupService) -> None:
        self.world, self.service = world, service
        self.groups, self.offsets = GroupHandlers(service, Here()), OffsetHandlers(service, world.topics)

    async def ask(self, api: str, request, *, version: int, cluster_id: int = 1):
        context = RequestContext(cluster_id=cluster_id, api_version=version, client_id="client")
        handlers = self.offsets if api.startswith("offset") else self.groups
        return await getattr(handlers, api)(context, request)

    def asking(self, api: str, request, *, version: int) -> asyncio.Future:
        return asyncio.ensure_future(self.ask(api, request, version=version))

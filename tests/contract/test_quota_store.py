"""The SQL of quotas, on every database."""

from __future__ import annotations

from typing import Any

from fixtures.clocks import ManualClock
from fixtures.unusual_names import UNUSUAL_NAMES

from penstock.agent.change_poller import ChangePoller
from penstock.authorization.service import AclService
from penstock.base.acls import Acl, Operation, ResourceType
from penstock.quotas import store
from penstock.quotas.model import QuotaChanged, entity
from penstock.quotas.service import Quotas
from penstock.quotas.settings import QuotaSettings
from penstock.quotas.throttles import Throttles
from penstock.quotas.transitions import QuotaAlteration

ALICE = entity(user="alice", client_id="app \0 ünï")
EVERYBODY = entity(user=None)
BOB = entity(user="bob")
CHANGE = QuotaAlteration(entity=[("user", "bob")], limits=[("producer_byte_rate", 5.0)])
UNCHANGE = QuotaAlteration(entity=[("user", "bob")], limits=[("producer_byte_rate", None)])


def changed(who: Any, key: str, value: float | None) -> QuotaChanged:
    return QuotaChanged(entity=who, key=key, value=value)


async def test_limits_come_back_as_they_were_stored(database: Any) -> None:
    records = [
        changed(ALICE, "producer_byte_rate", 2.0**53), changed(ALICE, "request_percentage", 0.1),
        changed(EVERYBODY, "producer_byte_rate", 5.0),
    ]  # fmt: skip
    for _ in range(2):
        await database.transaction(lambda: store.write(1, records))
        await database.transaction(lambda: store.write(2, records[:1]))
    assert (await database.read(store.load))[1] == {
        1: {ALICE: {"producer_byte_rate": 2.0**53, "request_percentage": 0.1}, EVERYBODY: {"producer_byte_rate": 5.0}},
        2: {ALICE: {"producer_byte_rate": 2.0**53}},
    }
    gone = [changed(ALICE, "producer_byte_rate", None), changed(EVERYBODY, "producer_byte_rate", 6.0)]
    for _ in range(2):
        await database.transaction(lambda: store.write(1, gone))
    assert (await database.read(store.load))[1] == {
        1: {ALICE: {"request_percentage": 0.1}, EVERYBODY: {"producer_byte_rate": 6.0}},
        2: {ALICE: {"producer_byte_rate": 2.0**53}},
    }


async def test_those_who_have_limits_have_any_names(database: Any) -> None:
    who = [entity(user=user, client_id=client) for user in UNUSUAL_NAMES.values() for client in UNUSUAL_NAMES.values()]
    records = [changed(one, "producer_byte_rate", float(number)) for number, one in enumerate(who)]
    await database.transaction(lambda: store.write(1, records))
    table = (await database.read(store.load))[1][1]
    assert table == {one: {"producer_byte_rate": float(number)} for number, one in enumerate(who)}
    await database.transaction(lambda: store.write(1, [changed(one, "producer_byte_rate", None) for one in who]))
    assert (await database.read(store.load))[1] == {}


def quotas_over(database: Any) -> Quotas:
    """The quotas of one agent."""
    return Quotas(database=database, throttles=Throttles(clock=ManualClock(), settings=QuotaSettings()))


async def test_limits_that_another_agent_has_changed(database: Any) -> None:
    one, other = quotas_over(database), quotas_over(database)
    await one.load()
    await other.load()
    heard: list[int] = []
    other.on_change = lambda: heard.append(1)
    assert await one.alter(1, [CHANGE]) == [None]
    assert other.table(1) == {}
    await other.refresh()
    assert other.table(1) == one.table(1) == {BOB: {"producer_byte_rate": 5.0}}
    await other.refresh()
    assert len(heard) == 1
    # What another agent has changed is neither overwritten nor forgotten by a change of one's own.
    assert await one.alter(2, [CHANGE]) == [None]
    assert await other.alter(1, [UNCHANGE]) == [None]
    assert (other.table(1), other.table(2)) == ({}, one.table(2))
    await one.refresh()
    assert one.table(1) == {}


async def test_changes_of_access_and_quotas_are_followed_without_a_write(database: Any) -> None:
    quotas, acls = quotas_over(database), AclService(database)
    other_quotas, other_acls = quotas_over(database), AclService(database)
    for opened in (acls, other_acls):
        await opened.open()
    for loaded in (quotas, other_quotas):
        await loaded.load()
    asked: list[str] = []

    async def refresh_acls() -> None:
        asked.append("acl")
        await acls.refresh()

    async def refresh_quotas() -> None:
        asked.append("quota")
        await quotas.refresh()

    poller = ChangePoller(database, {"acl": refresh_acls, "quota": refresh_quotas})
    await poller.poll()
    asked.clear()
    await poller.poll()
    assert asked == []
    rule = Acl(resource_type=ResourceType.TOPIC, resource_name="t", principal="User:a", operation=Operation.READ)
    await other_acls.create(1, [rule])
    await poller.poll()
    assert (asked, list(acls.index(1))) == (["acl"], [rule])
    await other_quotas.alter(1, [CHANGE])
    await poller.poll()
    assert (asked, quotas.table(1)) == (["acl", "quota"], other_quotas.table(1))
    counters = "SELECT name, value FROM counter ORDER BY name"
    before = await database.statement(counters)
    await poller.poll()
    assert asked == ["acl", "quota"]
    assert await database.statement(counters) == before

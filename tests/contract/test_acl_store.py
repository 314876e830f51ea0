"""The SQL of ACLs, and the service over it, on every database."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from penstock.authorization import service as module
from penstock.authorization import store
from penstock.authorization.service import AclService
from penstock.base.acls import Acl, AclFilter, Operation, PatternType, Permission, ResourceType
from penstock.base.errors import InvalidRequest
from penstock.metadata.database import Script

READ = Acl(
    resource_type=ResourceType.TOPIC, resource_name="orders", principal="User:alice", operation=Operation.READ
)  # fmt: skip
STRANGE = Acl(
    resource_type=ResourceType.GROUP, resource_name="ünï\0code" + "x" * 1000, pattern_type=PatternType.PREFIXED,
    principal="User:" + "y" * 1000, host="::1", operation=Operation.DELETE, permission=Permission.DENY,
)  # fmt: skip


async def test_acls_come_back_as_they_were_stored(database: Any) -> None:
    _, present = await database.read(store.load)
    assert present == []
    for _ in range(2):
        await database.transaction(lambda: store.create(1, [READ, STRANGE]))
    await database.transaction(lambda: store.create(2, [READ]))
    version, present = await database.read(store.load)
    assert version == 3
    assert sorted(present) == sorted([(1, READ), (1, STRANGE), (2, READ)])
    for _ in range(2):
        await database.transaction(lambda: store.delete(1, [READ]))
    assert sorted((await database.read(store.load))[1]) == sorted([(1, STRANGE), (2, READ)])
    assert await database.read(store.version) == 5


async def test_many_acls_are_changed_together_by_few_statements(database: Any) -> None:
    """As in Kafka all or none of a request are made: others wait for it, so it must not take long."""
    many = [replace(READ, resource_name=f"topic-{number}") for number in range(2 * store.AT_ONCE + 1)]
    asked = list[str]()

    await database.transaction(lambda: counting(store.create(1, many), asked))
    assert sorted((await database.read(store.load))[1]) == sorted((1, acl) for acl in many)
    await database.transaction(lambda: counting(store.delete(1, many[1:]), asked))
    assert (await database.read(store.load))[1] == [(1, many[0])]
    assert len(asked) == (1 + 3) + (1 + 2), "the counter, and then the ACLs"


def counting(script: Script[int], asked: list[str]) -> Script[int]:
    """The script itself, whose statements are noted."""
    try:
        statement = next(script)
        while True:
            asked.append(statement[0])
            statement = script.send((yield statement))
    except StopIteration as end:
        return int(end.value)


@pytest.mark.parametrize("field", ["principal", "host", "operation", "permission", "pattern_type", "resource_type"])
def test_every_field_counts(field: str) -> None:
    assert store.key_of(READ) != store.key_of(replace(READ, **{field: getattr(STRANGE, field)}))


def test_fields_do_not_run_into_each_other() -> None:
    assert store.key_of(replace(READ, resource_name="ab", principal="c")) != store.key_of(
        replace(READ, resource_name="a", principal="bc")
    )


async def test_what_is_decided_by_is_what_is_stored(database: Any) -> None:
    acls, changes = AclService(database), list[int | None]()
    acls.listen(changes.append)
    await acls.open()
    assert await acls.create(1, [READ, READ, replace(READ, resource_name="")]) == [
        None, None, "Invalid empty resource name",
    ]  # fmt: skip
    assert list(acls.index(1)) == [READ]
    assert await acls.create(2, [STRANGE]) == [None]
    assert len(acls.index(2)) == 1
    again = AclService(database)
    await again.open()
    assert list(again.index(1)) == [READ]
    assert list(again.index(2)) == [STRANGE]
    assert len(acls.index(3)) == 0

    everything = AclFilter()
    assert await acls.delete(1, [everything, everything, AclFilter(principal="User:bob")]) == [[READ], [READ], []]
    assert list(acls.index(1)) == []
    assert list(acls.index(2)) == [STRANGE], "another cluster's"
    assert changes == [None, 1, 2, 1]

    assert list(again.index(1)) == [READ], "it has not looked"
    await again.refresh()
    assert list(again.index(1)) == []


async def test_what_somebody_changed_who_hung_up_is_in_force(database: Any) -> None:
    acls = AclService(database)
    await acls.open()
    for change, expected in ((acls.create(1, [READ]), [READ]), (acls.delete(1, [AclFilter()]), [])):
        task = asyncio.ensure_future(change)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await acls.close()
        assert list(acls.index(1)) == expected


async def test_nothing_is_written_for_nothing(database: Any) -> None:
    acls = AclService(database)
    await acls.open()
    await acls.create(1, [READ])
    before = await database.read(store.version)
    await acls.create(1, [READ])
    await acls.delete(1, [AclFilter(principal="User:nobody")])
    assert await database.read(store.version) == before


async def test_what_another_agent_changed_is_not_missed_by_changing_something(database: Any) -> None:
    here, there = AclService(database), AclService(database)
    await here.open()
    await there.open()
    await here.create(1, [READ])
    assert await there.create(1, [STRANGE]) == [None]
    assert sorted(there.index(1)) == sorted([READ, STRANGE])
    await here.delete(1, [AclFilter()])
    assert list(here.index(1)) == []
    await there.create(1, [replace(READ, principal="User:carol")])
    assert [acl.principal for acl in there.index(1)] == ["User:carol"]


async def test_what_another_agent_changes_meanwhile_is_not_missed(database: Any) -> None:
    class Slow:
        """A database in which somebody else comes first."""

        read = database.read

        async def transaction(self, script: Any) -> Any:
            await database.transaction(lambda: store.delete(1, [READ]))
            return await database.transaction(script)

    first = AclService(database)
    await first.open()
    await first.create(1, [READ])
    acls = AclService(Slow())  # type: ignore[arg-type]
    await acls.open()
    await acls.create(1, [STRANGE])
    assert list(acls.index(1)) == [STRANGE]


async def test_what_a_request_may_remove_and_look_at_is_bounded(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Filters are compared with all ACLs, and a request may have a hundred thousand of them; all wait for the lock."""
    acls = AclService(database)
    await acls.open()
    present = [replace(READ, resource_name=f"t{number}") for number in range(20)]
    await acls.create(1, present)
    monkeypatch.setattr(module, "MAX_COMPARED", 100)
    with pytest.raises(InvalidRequest, match="excessively large"):
        await acls.delete(1, [AclFilter(principal="User:nobody")] * 5)
    assert await acls.delete(1, [AclFilter(principal="User:nobody")] * 4) == [[]] * 4
    exact = [
        AclFilter(resource_type=acl.resource_type, resource_name=acl.resource_name, pattern_type=acl.pattern_type)
        for acl in present[:10]
    ]
    monkeypatch.setattr(module, "MAX_CHANGES", 9)
    for filters in (exact, [AclFilter()]):
        with pytest.raises(InvalidRequest, match="excessively large"):
            await acls.delete(1, filters)
    assert len(acls.index(1)) == 20, "all of it or nothing"
    assert await acls.delete(1, exact[:9]) == [[acl] for acl in present[:9]]


async def test_of_a_cluster_that_goes_so_many_are_removed_at_a_time(
    database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHANGED_AT_ONCE", 4)
    acls = AclService(database)
    await acls.open()
    await acls.create(1, [replace(READ, resource_name=f"t{number}") for number in range(9)])
    await acls.create(2, [READ])
    assert [await acls.remove_some(1) for _ in range(4)] == [False, False, True, True]
    assert [len(acls.index(cluster_id)) for cluster_id in (1, 2)] == [0, 1]
    again = AclService(database)
    await again.open()
    assert [len(again.index(cluster_id)) for cluster_id in (1, 2)] == [0, 1]

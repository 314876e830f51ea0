"""The SQL of quotas, on every database."""

from __future__ import annotations

from typing import Any

from penstock.quotas import store
from penstock.quotas.model import QuotaChanged, entity

ALICE = entity(user="alice", client_id="app \0 ünï")
EVERYBODY = entity(user=None)


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
    assert await database.read(store.load) == {
        1: {ALICE: {"producer_byte_rate": 2.0**53, "request_percentage": 0.1}, EVERYBODY: {"producer_byte_rate": 5.0}},
        2: {ALICE: {"producer_byte_rate": 2.0**53}},
    }
    gone = [changed(ALICE, "producer_byte_rate", None), changed(EVERYBODY, "producer_byte_rate", 6.0)]
    for _ in range(2):
        await database.transaction(lambda: store.write(1, gone))
    assert await database.read(store.load) == {
        1: {ALICE: {"request_percentage": 0.1}, EVERYBODY: {"producer_byte_rate": 6.0}},
        2: {ALICE: {"producer_byte_rate": 2.0**53}},
    }

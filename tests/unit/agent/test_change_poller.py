"""What an agent reads anew when others have changed something."""

from __future__ import annotations

from typing import Any

import pytest
from fixtures.clocks import ManualClock
from fixtures.tables import have_tables

from penstock.agent.change_poller import ChangePoller
from penstock.base.errors import Unavailable
from penstock.metadata.inline import InlineDatabase


def moved(name: str) -> Any:
    yield (
        "INSERT INTO counter (name, value) VALUES ($1, 1) ON CONFLICT (name) DO UPDATE SET value = counter.value + 1",
        (name,),
    )


async def test_what_cannot_be_read_keeps_nothing_else_from_being_read() -> None:
    database, read, failing = InlineDatabase(), list[str](), {"keys"}
    await database.open()
    await have_tables(database, ManualClock())

    def refresh(name: str) -> Any:
        async def run() -> None:
            if name in failing:
                raise Unavailable(f"{name} are being changed")
            read.append(name)

        return run

    poller = ChangePoller(database, {name: refresh(name) for name in ("keys", "credentials")})
    with pytest.raises(Unavailable, match="keys"):
        await poller.poll()
    assert read == ["credentials"], "those that come after it, too"
    await database.transaction(lambda: moved("credentials"))
    with pytest.raises(Unavailable):
        await poller.poll()
    assert read == ["credentials"] * 2
    failing.clear()
    await poller.poll()
    assert read == ["credentials", "credentials", "keys"], "it is tried again until it is read"
    await poller.poll()
    assert len(read) == 3
    await database.close()

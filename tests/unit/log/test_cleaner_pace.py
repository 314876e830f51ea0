"""When the cleaner works, for how long, and for how long it then pauses."""

from __future__ import annotations

import pytest
from fixtures.clocks import ManualClock
from fixtures.upkeep_world import UpkeepWorld, record

from penstock.log.upkeep import cleaner, rewriting, segment_reader


async def test_steps_are_bounded_and_hold_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await UpkeepWorld().start()
    (partition,) = (await world.topic(cleanup_policy="compact")).partitions
    for number in range(8):
        await world.segment(partition, *([record((number * 40 + n) % 200, bytes(50_000))] for n in range(40)))
    biggest = 0
    read_into = world.objects.read_into

    def watched(key: str, start: int, buffer: memoryview) -> int:
        nonlocal biggest
        biggest = max(biggest, buffer.nbytes)
        return read_into(key, start, buffer)

    monkeypatch.setattr(world.objects, "read_into", watched)
    world.clock.time_ms += 15_000
    steps = 0
    while await world.upkeep.cleaner.run() != 15.0:
        steps += 1
    assert biggest <= segment_reader.DECODED_PIECE_BYTES
    assert steps > 2 * 8 * 2_000_000 / rewriting.STEP_BYTES
    assert len(await world.records(partition)) == 200


class TickingClock:
    """Another clock, on which every look takes a millisecond."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock

    def now_ms(self) -> int:
        return self._clock.now_ms()

    def monotonic(self) -> float:
        self._clock.time_ms += 1
        return self._clock.monotonic()


async def test_it_pauses_for_as_long_as_it_works_while_clients_are_there() -> None:
    world = await UpkeepWorld().start()
    (partition,) = (await world.topic(cleanup_policy="compact")).partitions
    for number in range(4):
        await world.segment(partition, *([record((number * 40 + n) % 80, bytes(50_000))] for n in range(40)))
    clients, pauses = 0, []
    world.upkeep.cleaner._activity = lambda: clients
    world.upkeep.changes.clock = TickingClock(world.clock)
    world.clock.time_ms += 15_000
    while not world.upkeep.cleaner._pass:
        await world.upkeep.cleaner.run()
    for step in range(8):
        clients += step in (2, 3)
        world.clock.time_ms += int(cleaner.CLIENTS_STAY_S * 1000) * (step == 6)
        pauses.append(await world.upkeep.cleaner.run())
    assert [pause > 0 for pause in pauses] == [False, False, True, True, True, True, False, False]


async def test_a_topic_that_is_to_be_compacted_is_looked_at_at_once() -> None:
    world = await UpkeepWorld().start()
    topic = await world.topic()
    await world.segment(topic.partitions[0], [record("a", 1)], [record("a", 2)])
    assert await world.upkeep.cleaner.run() == 15.0
    world.woken.clear()
    await world.topics.alter_topic(topic, lambda overrides: {"cleanup.policy": "compact"})
    assert world.woken == {world.upkeep.cleaner.name}
    while world.upkeep.cleaner.backlog or await world.upkeep.cleaner.run() == 0.0:
        await world.upkeep.cleaner.run()
    assert await world.offsets(topic.partitions[0]) == [1]
    world.woken.clear()
    await world.topics.alter_topic(topic, lambda overrides: {})
    assert not world.woken

"""Reading segments in pieces: whole batches, each byte once."""

from __future__ import annotations

import pytest
from fixtures.upkeep_world import UpkeepWorld, record

from penstock.base.errors import CorruptData
from penstock.log.model import Partition
from penstock.log.segments import SegmentRef
from penstock.log.upkeep.segment_reader import SegmentReader
from penstock.wire.records import iter_batches

SIZES = (0, 3000, 10, 100, 900_000, 5, 40_000, 700_000, 1, 2_000_000, 50)


async def written(world: UpkeepWorld) -> tuple[Partition, SegmentRef]:
    """A segment of batches of all sizes."""
    (partition,) = (await world.topic(cleanup_policy="compact")).partitions
    await world.segment(partition, *([record("k", bytes(size))] for size in SIZES))
    return partition, (await world.segments.list(partition))[0]


@pytest.mark.parametrize("piece_bytes", [61, 64, 1000, 4096, 500_000, 10_000_000])
async def test_pieces_are_whole_batches_and_no_byte_is_read_twice(
    piece_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await UpkeepWorld().start()
    partition, ref = await written(world)
    body = bytearray(ref.byte_length)
    world.objects.read_into(ref.object_key, 0, memoryview(body))
    asked, read_into = [], world.objects.read_into

    def watched(key: str, start: int, buffer: memoryview) -> int:
        asked.append((start, start + len(buffer)))
        return read_into(key, start, buffer)

    monkeypatch.setattr(world.objects, "read_into", watched)
    for skipped in (0, next(position for position, _ in iter_batches(body) if position)):
        reader = SegmentReader(world.objects, None, partition, ref, position=skipped, piece_bytes=piece_bytes)
        asked.clear()
        found = bytearray()
        while (piece := reader.read()) is not None:
            assert sum(header.size_bytes for _, header in iter_batches(piece)) == len(piece)
            found += piece
        assert found == body[skipped:]
        assert [start for start, _ in asked] == [skipped, *(end for _, end in asked[:-1])]
        assert asked[-1][1] == ref.byte_length


@pytest.mark.parametrize(("position", "value"), [(8, 1), (8, 0x7F), (11, 0)])
async def test_a_batch_of_an_impossible_size_is_noticed(position: int, value: int) -> None:
    world = await UpkeepWorld().start()
    partition, ref = await written(world)
    body = bytearray(ref.byte_length)
    world.objects.read_into(ref.object_key, 0, memoryview(body))
    last = [start for start, _ in iter_batches(body)][-1]
    body[last + position] = value
    world.objects.put(ref.object_key, [body])
    reader = SegmentReader(world.objects, None, partition, ref, piece_bytes=1000)
    with pytest.raises(CorruptData, match="a batch of"):
        list(iter(reader.read, None))

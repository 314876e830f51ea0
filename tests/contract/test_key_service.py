"""What every key service does, that of this machine and the fake of the other tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures.clocks import ManualClock
from fixtures.key_services import FakeKeyService

from penstock.base.errors import CorruptData, Unavailable
from penstock.base.randomness import SeededRandomness, SystemRandomness
from penstock.keys.local_file import LocalKeyFile
from penstock.keys.model import KeyDestroyed
from penstock.keys.port import KeyService
from penstock.keys.retrying import RetryingKeyService

Opener = Callable[[], KeyService]
SECRET, CONTEXT = bytes(range(32)), b"cluster 1, key 5"


@pytest.fixture(params=["local file", "fake", "retrying"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Opens the service; again is after a restart."""
    if request.param != "local file":
        fake = FakeKeyService()
        if request.param == "fake":
            return lambda: fake
        randomness = SeededRandomness("retrying")
        return lambda: RetryingKeyService(fake, clock=ManualClock(), randomness=randomness, timeout_s=1.0)
    return lambda: LocalKeyFile(tmp_path / "keys" / "master-keys", SystemRandomness())


async def test_what_is_wrapped_is_unwrapped_after_a_restart(opened: Opener) -> None:
    service = opened()
    key_id = await service.create()
    wrapped = await service.wrap(key_id, SECRET, CONTEXT)
    assert SECRET not in wrapped
    assert await service.unwrap(key_id, wrapped, CONTEXT) == SECRET
    assert await opened().unwrap(key_id, wrapped, CONTEXT) == SECRET


async def test_no_wrapping_is_like_another(opened: Opener) -> None:
    service = opened()
    key_id = await service.create()
    assert await service.wrap(key_id, SECRET, CONTEXT) != await service.wrap(key_id, SECRET, CONTEXT)


async def test_a_key_opens_nothing_but_what_it_wrapped_for_that_context(opened: Opener) -> None:
    service = opened()
    key_id, other = await service.create(), await service.create()
    assert key_id != other
    wrapped = await service.wrap(key_id, SECRET, CONTEXT)
    flipped = wrapped[:-1] + bytes((wrapped[-1] ^ 1,))
    for key, data, context in (
        (key_id, wrapped, b"cluster 2, key 5"),
        (other, wrapped, CONTEXT),
        (key_id, flipped, CONTEXT),
        (key_id, wrapped[:8], CONTEXT),
        (key_id, b"", CONTEXT),
    ):
        with pytest.raises(CorruptData):
            await service.unwrap(key, data, context)


async def test_a_destroyed_key_is_gone_for_good_and_no_other_is(opened: Opener) -> None:
    service = opened()
    key_id, other = await service.create(), await service.create()
    wrapped, kept = await service.wrap(key_id, SECRET, CONTEXT), await service.wrap(other, SECRET, CONTEXT)
    await service.destroy(key_id)
    await service.destroy(key_id)  # Nothing else happens.
    for again in (service, opened()):
        with pytest.raises(KeyDestroyed):
            await again.unwrap(key_id, wrapped, CONTEXT)
        with pytest.raises(KeyDestroyed):
            await again.wrap(key_id, SECRET, CONTEXT)
        assert await again.unwrap(other, kept, CONTEXT) == SECRET


async def test_a_key_that_was_never_there_may_be_there_later(opened: Opener) -> None:
    service = opened()
    await service.create()
    with pytest.raises(Unavailable):
        await service.unwrap("0123456789abcdef", bytes(60), CONTEXT)

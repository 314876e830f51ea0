"""The file of master keys: for its owner only, whole or not at all, and read again when something is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.base.errors import CorruptData, InvalidRequest, Unavailable
from penstock.base.randomness import SystemRandomness
from penstock.keys import local_file
from penstock.keys.local_file import LocalKeyFile, check_key_file
from penstock.keys.model import KeyDestroyed


def service_of(path: Path) -> LocalKeyFile:
    return LocalKeyFile(path, SystemRandomness())


async def test_the_file_is_made_when_the_first_key_is(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "master-keys"
    service = service_of(path)
    assert not path.exists()
    await service.create()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


async def test_names_of_new_folders_are_made_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    sync = local_file._sync
    monkeypatch.setattr(local_file, "_sync", lambda path: (synced.append(path), sync(path)))
    await service_of(tmp_path / "a" / "b" / "master-keys").create()
    assert set(synced) == {tmp_path, tmp_path / "a", tmp_path / "a" / "b"}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
async def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "master-keys"
    key_id = await service_of(path).create()
    path.chmod(mode)
    with pytest.raises(InvalidRequest, match="chmod 600"):
        check_key_file(path)
    with pytest.raises(InvalidRequest, match="chmod 600"):
        await service_of(path).wrap(key_id, bytes(32), b"")
    path.chmod(0o600)
    check_key_file(path)
    await service_of(path).wrap(key_id, bytes(32), b"")


@pytest.mark.parametrize("text", ["abc\n", "abc AAAA\n", "abc %%%%\n", "\xff\xfe"])
async def test_a_damaged_file_is_complained_about_and_not_written_over(tmp_path: Path, text: str) -> None:
    path = tmp_path / "master-keys"
    path.write_bytes(text.encode("latin-1"))
    path.chmod(0o600)
    with pytest.raises(CorruptData):
        await service_of(path).create()
    assert path.read_bytes() == text.encode("latin-1")


async def test_a_file_that_comes_back_is_read(tmp_path: Path) -> None:
    path = tmp_path / "master-keys"
    key_id = await service_of(path).create()
    path.rename(tmp_path / "elsewhere")
    service = service_of(path)
    with pytest.raises(Unavailable):
        await service.wrap(key_id, bytes(32), b"")
    (tmp_path / "elsewhere").rename(path)
    await service.wrap(key_id, bytes(32), b"")


async def test_no_key_is_destroyed_in_a_file_that_is_elsewhere(tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "master-keys", tmp_path / "elsewhere"
    service = service_of(path)
    key_id = await service.create()
    path.rename(elsewhere)
    for one in (service, service_of(path)):
        with pytest.raises(Unavailable, match="Put the file back"):
            await one.destroy(key_id)
    with pytest.raises(Unavailable, match="Put the file back"):
        await service.create()  # What was in the file would be lost when it comes back, or this key would.
    assert not path.exists()
    elsewhere.rename(path)
    await service.destroy(key_id)
    assert f"{key_id} -\n" in path.read_text()


async def test_that_no_copy_of_the_file_is_left_is_told_by_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "master-keys"
    key_id = await service_of(path).create()
    path.unlink()
    service = service_of(path)
    with pytest.raises(Unavailable):
        await service.destroy(key_id)
    path.touch(mode=0o600)
    await service.destroy(key_id)
    with pytest.raises(KeyDestroyed):
        await service.wrap(key_id, bytes(32), b"")


async def test_two_processes_lose_none_of_their_keys(tmp_path: Path) -> None:
    path = tmp_path / "master-keys"
    one, other = service_of(path), service_of(path)
    ids = [await service.create() for _ in range(3) for service in (one, other)]
    for key_id in ids:
        await one.wrap(key_id, bytes(32), b"")


async def test_nothing_is_left_of_a_destroyed_key(tmp_path: Path) -> None:
    path = tmp_path / "master-keys"
    service = service_of(path)
    key_id = await service.create()
    (line,) = [line for line in path.read_text().splitlines() if line.startswith(key_id)]
    secret = line.split(" ")[1]
    with path.open("rb") as before:
        await service.destroy(key_id)
        assert secret.encode() not in before.read()  # The file that was replaced is overwritten.
    assert not any(secret.encode() in file.read_bytes() for file in tmp_path.iterdir())

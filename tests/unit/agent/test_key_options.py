"""What is refused before an agent with keys starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.agent.checks import checked_settings, master_key_file
from penstock.base.errors import InvalidRequest
from penstock.base.options import UpOptions


def test_what_is_encrypted_in_memory_needs_a_file_of_keys(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="--master-key-file"):
        checked_settings(UpOptions(data_dir=None, encrypt=True))
    checked_settings(UpOptions(data_dir=None, encrypt=True, master_key_file=tmp_path / "keys"))


def test_keys_that_others_can_read_are_refused(tmp_path: Path) -> None:
    path = master_key_file(UpOptions(data_dir=tmp_path))
    assert path == tmp_path / "keys" / "master-keys"
    path.parent.mkdir()
    path.write_text("")
    path.chmod(0o640)
    with pytest.raises(InvalidRequest, match="chmod 600"):
        checked_settings(UpOptions(data_dir=tmp_path))

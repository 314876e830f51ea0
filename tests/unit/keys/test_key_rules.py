"""The rules of keys as tables."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penstock.base.errors import InvalidRequest
from penstock.keys import transitions
from penstock.keys.model import ClusterKeys, KeyState, LockReason, WrappedKey

ON = ClusterKeys(1, KeyState.ON, "m1", 10)
OLD, CURRENT = WrappedKey(9, 1, "m1", b"", 0), WrappedKey(10, 1, "m1", b"", 0)


def test_rotation_and_rewrapping() -> None:
    assert transitions.rotated(ON, 11).current_key_id == 11
    after = transitions.rewrapped(ON, "m2")
    assert (after.master_key_id, after.retired_master_key_id) == ("m2", "m1")
    assert transitions.to_destroy(after) == ["m1"]
    with pytest.raises(InvalidRequest):
        transitions.rewrapped(after, "m3")  # Else one of them would be forgotten.
    assert transitions.to_destroy(transitions.without_retired(after)) == []


def test_a_master_key_that_wraps_something_is_kept() -> None:
    after = transitions.rewrapped(ON, "m2")
    anew = replace(CURRENT, master_key_id="m2")
    assert transitions.left_behind(after, [OLD, anew, replace(OLD, cluster_id=2)]) == [OLD]
    assert transitions.left_behind(after, [anew]) == transitions.left_behind(ON, [OLD]) == []
    assert transitions.to_destroy(after, [OLD, anew]) == []
    assert transitions.to_destroy(after, [anew]) == ["m1"]
    assert sorted(transitions.to_destroy(transitions.erasing(after), [OLD, anew])) == ["m1", "m2"]


def test_erasing_destroys_every_master_key_there_is() -> None:
    assert transitions.to_destroy(ON) == []
    doomed = transitions.erasing(transitions.rewrapped(ON, "m2"))
    assert sorted(transitions.to_destroy(doomed)) == ["m1", "m2"]
    gone = transitions.erased(doomed)
    assert gone.state is KeyState.ERASED
    assert transitions.to_destroy(gone) == []
    assert transitions.erasing(gone) == gone


@pytest.mark.parametrize("keys", [None, replace(ON, state=KeyState.ERASING), replace(ON, state=KeyState.ERASED)])
def test_only_what_is_encrypted_gets_other_keys(keys: ClusterKeys | None) -> None:
    with pytest.raises(InvalidRequest):
        transitions.rotated(keys, 11)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest):
        transitions.rewrapped(keys, "m2")  # type: ignore[arg-type]


def test_what_was_never_encrypted_cannot_be_erased_by_a_key() -> None:
    with pytest.raises(InvalidRequest):
        transitions.erasing(None)


@pytest.mark.parametrize(
    ("state", "has_current", "expected"),
    [
        (KeyState.ON, True, None),
        (KeyState.ON, False, LockReason.WAITING),
        (KeyState.ERASING, True, LockReason.ERASED),
        (KeyState.ERASED, False, LockReason.ERASED),
    ],
)
def test_who_is_locked(state: KeyState, has_current: bool, expected: LockReason | None) -> None:
    assert transitions.lock_of(replace(ON, state=state), has_current=has_current) is expected


@pytest.mark.parametrize(
    ("in_use", "replaced_at", "floor", "expected"),
    [
        ((), {9: 5}, 5, [9]),
        ((), {9: 6}, 5, []),  # A commit that is still in the log may be sealed by it.
        ((), {}, 5, []),  # Nobody knows when it was replaced.
        ((9,), {9: 5}, 5, []),
        ((), {9: 5, 10: 5}, 5, [9]),  # Never the current one.
    ],
)
def test_which_keys_are_spent(
    in_use: tuple[int, ...], replaced_at: dict[int, int], floor: int, expected: list[int]
) -> None:
    assert transitions.spent((OLD, CURRENT), {1: ON}, in_use, replaced_at, floor) == expected

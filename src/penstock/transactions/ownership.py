"""Ownership of transactional ids that another agent coordinates, or may coordinate by now.

A produce request cannot wait for the database. So it gets a retriable error while its producer's ownership of the id is
looked up, once: producer ids are never reused, so a producer that owned the id keeps it until another one gets it, and
one that did not own it after it was first seen never gets it back.
"""

from __future__ import annotations

import asyncio

from penstock.base.errors import PlatformError
from penstock.coordination.model import Key
from penstock.metadata.database import Database
from penstock.transactions import store
from penstock.wire.error_codes import ErrorCode

REMEMBERED_MAX = 100_000


class OwnershipCache:
    """Results of look-ups, and look-ups in progress."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._answers: dict[tuple[Key, int], ErrorCode] = {}
        self._lookups: dict[tuple[Key, int], asyncio.Task[None]] = {}

    def ownership(self, key: Key, producer_id: int) -> ErrorCode:
        """Why a producer does not own an id, or NONE; NOT_LEADER_OR_FOLLOWER while that is unknown."""
        key_and_producer = (key, producer_id)
        answer = self._answers.get(key_and_producer)
        if answer is not None:
            return answer
        if key_and_producer not in self._lookups and len(self._lookups) < REMEMBERED_MAX:
            task = self._lookups[key_and_producer] = asyncio.get_running_loop().create_task(
                self._look_up(key, producer_id)
            )
            task.add_done_callback(lambda _: self._lookups.pop(key_and_producer, None))
        return ErrorCode.NOT_LEADER_OR_FOLLOWER

    async def _look_up(self, key: Key, producer_id: int) -> None:
        try:
            txn = await self._database.read(lambda: store.load_one(key))
        except PlatformError:
            return
        is_owner = txn is not None and txn.producer_id == producer_id
        while len(self._answers) >= REMEMBERED_MAX:
            del self._answers[next(iter(self._answers))]
        self._answers[key, producer_id] = ErrorCode.NONE if is_owner else ErrorCode.INVALID_PRODUCER_ID_MAPPING

"""Whose transactional ids are that another agent coordinates, or may coordinate by now.

A producer's request cannot wait for the database. So it is told to try again while its right to the id is looked up,
which happens once: producer ids are never given twice, so whoever had the id when it was asked keeps it until another
producer gets it, and whoever did not have it after it was heard of never gets it back.
"""

from __future__ import annotations

import asyncio

from penstock.base.errors import PlatformError
from penstock.coordination.model import Key
from penstock.metadata.database import Database
from penstock.transactions import store
from penstock.wire.error_codes import ErrorCode

REMEMBERED_MAX = 100_000


class Elsewhere:
    """What was asked, and is being asked."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._answers: dict[tuple[Key, int], ErrorCode] = {}
        self._asking: dict[tuple[Key, int], asyncio.Task[None]] = {}

    def ownership(self, key: Key, producer_id: int) -> ErrorCode:
        """Why an id is not this producer's, or NONE; NOT_LEADER_OR_FOLLOWER while it is not known."""
        question = (key, producer_id)
        answer = self._answers.get(question)
        if answer is not None:
            return answer
        if question not in self._asking and len(self._asking) < REMEMBERED_MAX:
            task = self._asking[question] = asyncio.get_running_loop().create_task(self._ask(key, producer_id))
            task.add_done_callback(lambda _: self._asking.pop(question, None))
        return ErrorCode.NOT_LEADER_OR_FOLLOWER

    async def _ask(self, key: Key, producer_id: int) -> None:
        try:
            txn = await self._database.read(lambda: store.load_one(key))
        except PlatformError:
            return
        is_owner = txn is not None and txn.producer_id == producer_id
        while len(self._answers) >= REMEMBERED_MAX:
            del self._answers[next(iter(self._answers))]
        self._answers[key, producer_id] = ErrorCode.NONE if is_owner else ErrorCode.INVALID_PRODUCER_ID_MAPPING

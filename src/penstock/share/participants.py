"""Dead letters (KIP-1191) as participants of a flush.

The note of what the dead letters are about is part of the flush's own transaction. So a crash leaves both or neither,
and no record gets two dead letters. Dead letters are separate from acknowledgements, which wait neither for the log nor
for dead letters.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from penstock.base.errors import Conflict, Fenced, PlatformError, Unavailable
from penstock.coordination.fenced_writes import FencedWrites
from penstock.coordination.leases import SlotsLost
from penstock.keys.model import LockReason
from penstock.log.answers import Appended
from penstock.log.commit_path import Outdated
from penstock.log.flush import Flush, ParticipantTicket
from penstock.metadata.database import Script
from penstock.share.model import DeadLetterBatch
from penstock.wire.error_codes import ErrorCode


class DeadLetterWrites:
    """The notes about dead letters in a flush."""

    def __init__(self, script: Callable[[], Script[None]]) -> None:
        self.script = script

    def record(self) -> bytes | None:
        """None: the state of share groups is in the database only."""
        return None


class DeadLetterAppend(ParticipantTicket):
    """One batch of dead letters."""

    def __init__(
        self, fenced_writes: FencedWrites, note: Callable[[], Script[None]], dead_letters: DeadLetterBatch,
        lock_of: Callable[[int], LockReason | None],
    ) -> None:  # fmt: skip
        self._fenced_writes, self._note, self._dead_letters, self._lock_of = fenced_writes, note, dead_letters, lock_of
        self._lost: Fenced | None = None
        self._error = ErrorCode.NONE
        self.outcome: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        """Whether the queue has the dead letters once the flush is durable: it may have been deleted meanwhile."""

    def prepare(self, flush: Flush) -> bool:
        """Join, unless it is already known to be pointless."""
        if self.outcome.done():
            return True  # The caller was cancelled.
        if flush.is_touched(DeadLetterWrites):
            return False
        obstacle = self._obstacle()
        if obstacle is not None:
            self.outcome.set_exception(obstacle)
            return True
        flush.append(self._dead_letters.queue, self._dead_letters.batch, self)
        flush.join(self, keys=(DeadLetterWrites,))
        flush.gather(DeadLetterWrites, lambda: DeadLetterWrites(self._script))
        return True

    def _obstacle(self) -> PlatformError | None:
        topic = self._dead_letters.queue.topic
        if self._lost is not None:
            if isinstance(self._lost, SlotsLost):
                self._fenced_writes.mark_lost(self._lost)
            return self._lost
        if topic.deleted:
            return Conflict(f"{topic.name} was deleted")
        if self._lock_of(topic.cluster_id) is not None:
            return Unavailable("the keys of the cluster are not there")
        return None

    def _script(self) -> Script[None]:
        try:
            yield from self._note()
        except Fenced as lost:
            # Only this participant is outdated. The flush is put together again without it.
            self._lost = lost
            raise Outdated(str(lost)) from None

    def settle(self, position: int, result: Appended) -> None:
        """The result of the batch; that of the flush follows."""
        self._error = result.error

    def committed(self) -> None:
        """The flush is durable."""
        if not self.outcome.done():
            self.outcome.set_result(self._error is ErrorCode.NONE)

    def failed(self, problem: PlatformError) -> None:
        """The flush failed. Even if the log has another writer by now, this process may still hold the slots, and the
        locks that only it knows."""
        if not self.outcome.done():
            self.outcome.set_exception(problem if isinstance(problem, Unavailable) else Unavailable(str(problem)))

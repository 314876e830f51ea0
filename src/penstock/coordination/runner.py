"""The runner: decide → persist → evolve → reply.

Every key has a *cell*: its state in force, and decisions in flight.

    request ──► decide on the state ──► no records: in force at once, replies are sent
                                   └──► records: staged ─► next transaction ─► in force, replies are sent

- While nothing is staged, a decision without records (a heartbeat) takes effect immediately and writes nothing.
- A decision with records is staged. Later requests of the cell are decided on the staged state and wait with it, so no
  reply is ever based on a state that is not durable.
- One transaction runs at a time and contains everything staged in all cells; while it runs, requests of those cells
  wait in their mailbox and other cells continue. So one transaction commits many decisions (group commit), without a
  timer.
- A failed write drops the whole cell from memory: all its waiters get a retriable error, and the state is loaded again.
  Nothing of the failed decisions was visible. With `keeps_states`, for states that are largely in memory only, the
  state in force is kept, and only waiters of the failed decisions get the error, unless the outcome is unknown.
- The store may refuse a record that no state depends on. Then its decision stands, but its replies are not true: their
  waiters get a retriable error.
- Timers are decided like requests, but not during a transaction, nor when a staged decision will reset them.

Cells without timers and waiters are cached, least recently used evicted first, limited by number and by total weight.
There is no periodic work.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Container, Coroutine, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar

from penstock.base.clock import Clock
from penstock.base.dataclasses import dataclass
from penstock.base.errors import Conflict, Fenced, OutcomeUnknown, PlatformError, Unavailable
from penstock.coordination.model import Decision, Journal, Key, Loading, R, Reply, Rules, S, Waiter
from penstock.coordination.timers import Alarms, Deadlines

T = TypeVar("T")

_logger = logging.getLogger(__name__)

_RELOAD_DELAYS_MS = (200, 500, 1000, 2000, 5000)
"""Pauses before a dropped state with timers is loaded again; the last one repeats."""


@dataclass(frozen=True, slots=True)
class _Command(Generic[S, R]):
    """A rule to apply to a cell, with its waiter if a request submitted it."""

    decide: Callable[[S | None, int], Decision[S, R]]
    waiter: Waiter | None
    if_revision: int | None = None


def _always(state: object) -> bool:
    """Every state is in the store."""
    return True


def _alike(state: object) -> int:
    """All states weigh the same."""
    return 1


def _nobody_listens(key: Key, is_there: bool) -> None:
    pass


class _Cell(Generic[S, R]):
    """One key's state in memory."""

    __slots__ = (
        "deadlines", "flying", "kept", "key", "loaded", "mailbox", "revision", "rung", "staged", "state", "waiting"
    )  # fmt: skip

    def __init__(self, key: Key, alarms: Alarms, ring: Callable[[], None]) -> None:
        self.key = key
        self.state: S | None = None
        self.loaded = False
        self.flying = False
        self.kept = False
        """Whether its timers must be set again, after a failed write."""
        self.rung = False
        """Whether a timer has fired whose decision is not durable yet."""
        self.revision = 0
        self.staged: list[Decision[S, R]] = []
        self.mailbox: deque[_Command[S, R]] = deque()
        self.waiting: dict[Waiter, asyncio.Future[object]] = {}
        self.deadlines = Deadlines(alarms, ring)

    def moved(self) -> frozenset[str]:
        """Timers that staged decisions will reset."""
        return frozenset(timer.name for decision in self.staged for timer in decision.timers)

    def idle(self) -> bool:
        """Whether nothing would be lost by evicting the cell."""
        is_busy = self.flying or self.kept or self.staged or self.waiting or self.mailbox
        return self.loaded and not is_busy and len(self.deadlines) == 0


class Runner(Generic[S, R]):
    """Runs rules over the states of all keys this process coordinates."""

    def __init__(
        self, *, journal: Journal[S, R], rules: Rules[S, R], clock: Clock, alarms: Alarms, idle_cells_max: int = 4096,
        keeps_states: bool = False, outlives: Callable[[S], bool] = _always,
        on_presence: Callable[[Key, bool], None] = _nobody_listens, weigh: Callable[[S], int] = _alike,
        idle_weight_max: int = 2**31,
    ) -> None:  # fmt: skip
        self._journal, self._rules, self._clock, self._alarms = journal, rules, clock, alarms
        self._idle_cells_max, self._keeps_states = idle_cells_max, keeps_states
        self._outlives, self._on_presence = outlives, on_presence
        """Whether a state is in the store, so that it survives eviction; and a callback for when a key gets a state, or
        loses it."""
        self._weigh, self._idle_weight_max = weigh, idle_weight_max
        self._cells: dict[Key, _Cell[S, R]] = {}
        self._idle: OrderedDict[Key, int] = OrderedDict()
        """Weights of idle cells, least recently used first."""
        self._idle_weight = 0
        self._staged: dict[Key, _Cell[S, R]] = {}
        self._flying: list[_Cell[S, R]] = []
        """The cells in the running transaction."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._writing = False
        self._open = self._closed = False
        self._last_waiter = self._last_revision = 0

    async def open(self) -> None:
        """Take the slots and load the states that have timers. Until it returns, requests get `Loading`."""
        for key, state in await self._journal.open():
            cell = self._new_cell(key)
            try:
                self._restore(cell, state)
            except Exception as problem:  # noqa: BLE001  # raised again for the caller
                self._unread(cell, problem, None)
        self._open = True

    def require_open(self) -> None:
        """Raise the error for requests that come before `open` or after `close`."""
        if self._closed:
            raise Unavailable("the coordinator is shutting down")
        if not self._open:
            raise Loading("the coordinator is reading its state")

    async def close(self) -> None:
        """Accept no more requests, finish accepted writes, and fail the remaining waiters."""
        self._closed = True
        while self._tasks:
            await asyncio.wait(self._tasks)
        for cell in list(self._cells.values()):
            self._drop(cell, Unavailable("the coordinator is shutting down"))

    async def submit(
        self,
        key: Key,
        decide: Callable[[S | None, Waiter, int], Decision[S, R]],
        answer: type[T],
        *,
        if_revision: int | None = None,
    ) -> T:
        """Apply a rule to the state under a key; returns the reply that its waiter gets, now or much later.

        The rule gets the state, the waiter of this request, and the time in ms. Raises the journal's error if the
        decision could not be made durable, `Loading` before `open` is through, and `Conflict` if the state is no longer
        of the revision that `peek` returned.
        """
        result = await self.post(key, decide, if_revision=if_revision)
        if not isinstance(result, answer):
            raise TypeError(f"a rule answered with {type(result).__name__} instead of {answer.__name__}")
        return result

    def post(
        self,
        key: Key,
        decide: Callable[[S | None, Waiter, int], Decision[S, R]],
        *,
        if_revision: int | None = None,
    ) -> asyncio.Future[Any]:
        """The same, but when this returns, the rule precedes every rule that is submitted for the key later."""
        self.require_open()
        self._last_waiter += 1
        waiter = self._last_waiter
        cell = self._cell(key)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        cell.waiting[waiter] = future
        cell.mailbox.append(_Command(lambda state, now_ms: decide(state, waiter, now_ms), waiter, if_revision))
        self._drain(cell)
        return future

    async def settled(self, key: Key) -> None:
        """Wait until everything decided so far under a key is durable, so that the store may be read."""
        cell = self._cells.get(key)
        if cell is not None and cell.loaded and (cell.flying or cell.staged):
            await self.peek(key)

    async def settle_where(self, is_meant: Callable[[Key], bool]) -> None:
        """The same for every key that matches; failed writes count as settled."""
        under_way = [cell.key for cell in (*self._flying, *self._staged.values()) if is_meant(cell.key)]
        for key in dict.fromkeys(under_way):
            with suppress(PlatformError):
                await self.settled(key)

    def keys_where(self, is_meant: Callable[[Key], bool]) -> list[Key]:
        """The keys that match and have a cell in memory."""
        return [key for key in self._cells if is_meant(key)]

    def forget_where(self, is_meant: Callable[[Key], bool]) -> list[Key]:
        """Drop the cells of keys whose rows another transaction deleted, with a retriable error for their waiters.
        Nothing may be in flight for them. Returns the keys."""
        gone = self.keys_where(is_meant)
        for key in gone:
            self._drop(self._cells[key], Unavailable("what was known of this is gone"))
        return gone

    async def peek(self, key: Key) -> tuple[S | None, int]:
        """The state under a key once it is durable, and its revision: a number that changes with the state."""
        peeked = await self.submit(key, lambda state, waiter, _: _answered(state, waiter, state), _Peeked)
        cell = self._cells.get(key)
        return peeked.state, cell.revision if cell is not None else 0

    def current(self, key: Key) -> tuple[bool, S | None]:
        """(True, state) if the state is in memory and nothing in flight would change it."""
        cell = self._cells.get(key)
        if cell is None or not cell.loaded or cell.flying or cell.staged or cell.mailbox:
            return False, None
        return True, cell.state

    def latest(self, key: Key) -> tuple[bool, S | None]:
        """(True, state) if the state is in memory, as of the last decision, durable or not."""
        cell = self._cells.get(key)
        if cell is None or not cell.loaded:
            return False, None
        return True, cell.staged[-1].state if cell.staged else cell.state

    def states(self) -> Iterator[tuple[Key, S | None]]:
        """Every state in memory, as in force now."""
        return ((key, cell.state) for key, cell in list(self._cells.items()) if cell.loaded)

    def _cell(self, key: Key) -> _Cell[S, R]:
        cell = self._cells.get(key)
        if cell is None:
            cell = self._new_cell(key)
            self._spawn(self._load(cell, reload=None))
        self._stir(key)
        return cell

    def _stir(self, key: Key) -> None:
        self._idle_weight -= self._idle.pop(key, 0)

    def _new_cell(self, key: Key) -> _Cell[S, R]:
        cell = self._cells[key] = _Cell(key, self._alarms, partial(self._ring, key))
        return cell

    async def _load(self, cell: _Cell[S, R], *, reload: int | None) -> None:
        try:
            state = await self._journal.load(cell.key)
            if self._cells.get(cell.key) is cell:  # Else it was dropped while it was read.
                self._restore(cell, state)
        except Exception as problem:  # noqa: BLE001  # waiters get it: they must not wait for ever
            self._unread(cell, problem, reload)
        else:
            self._drain(cell)

    def _unread(self, cell: _Cell[S, R], problem: Exception, reload: int | None) -> None:
        """A state could not be loaded. Even if a bug caused that, only this state is affected."""
        if isinstance(problem, PlatformError):
            error = problem
        else:
            _logger.error("the state of %s cannot be read", cell.key, exc_info=problem)
            error = Unavailable(f"the state cannot be read: {problem}")
        self._drop(cell, error)
        if reload is not None and not isinstance(error, Fenced):
            self._reload_later(cell.key, reload + 1)

    def _restore(self, cell: _Cell[S, R], state: S | None) -> None:
        cell.loaded = True
        decision: Decision[S, R] = Decision(state=None)
        if state is not None:
            decision = self._rules.restored(cell.key, state, self._clock.now_ms())
        self._adopt(cell, decision, is_news=False)
        self._rest(cell)

    def _drain(self, cell: _Cell[S, R]) -> None:
        """Decide everything in the mailbox, unless a load or a transaction must end first."""
        while cell.mailbox and cell.loaded and not cell.flying:
            command = cell.mailbox.popleft()
            if command.if_revision is not None and (cell.staged or command.if_revision != cell.revision):
                self._answer(cell, command.waiter, Conflict(f"{cell.key} has changed meanwhile"))
                continue
            try:
                decision = command.decide(cell.staged[-1].state if cell.staged else cell.state, self._clock.now_ms())
            except PlatformError as refusal:
                self._answer(cell, command.waiter, refusal)
                continue
            except Exception as bug:
                # A failing rule fails this request only: nothing of it has happened.
                _logger.exception("a coordination rule failed for %s", cell.key)
                self._answer(cell, command.waiter, bug)
                continue
            if decision.records or cell.staged:
                cell.staged.append(decision)
                self._staged[cell.key] = cell
            else:
                self._adopt(cell, decision)
        if self._staged and not self._writing:
            self._writing = True
            self._spawn(self._write())
        self._rest(cell)

    async def _write(self) -> None:
        """Run transactions until nothing is staged."""
        while self._staged:
            cells, self._staged = list(self._staged.values()), {}
            for cell in cells:
                cell.flying = True
            self._flying = cells
            await self._commit(cells)
            self._flying = []
        self._writing = False

    async def _commit(self, cells: list[_Cell[S, R]]) -> None:
        """One transaction for all of these cells. If one of them cannot be written, only that one fails."""
        decided = [
            (cell.key, record, decision) for cell in cells for decision in cell.staged for record in decision.records
        ]
        try:
            refused = await self._journal.write([(key, record) for key, record, _ in decided])
        except PlatformError as error:
            self._failed(cells, error)
        except Exception as bug:
            if len(cells) > 1:
                for cell in cells:
                    await self._commit([cell])
                return
            _logger.exception("a coordination write for %s failed", cells[0].key)
            self._failed(cells, Unavailable(f"a write failed: {bug}"))
        else:
            unheard = {id(decided[number][2]) for number in refused}
            for cell in cells:
                self._landed(cell, unheard)

    def _landed(self, cell: _Cell[S, R], unheard: Container[int]) -> None:
        cell.flying = cell.rung = False
        staged, cell.staged = cell.staged, []
        for decision in staged:
            if id(decision) in unheard:
                for reply in decision.replies:
                    self._answer(cell, reply.waiter, Loading("the store knows better: ask again"))
            self._adopt(cell, decision)
        self._renew_timers(cell)
        self._drain(cell)  # Before timers fire: mailbox requests may move them.
        self._ring(cell.key)

    def _failed(self, cells: list[_Cell[S, R]], error: PlatformError) -> None:
        for cell in cells:
            if self._keeps_states and not isinstance(error, (Fenced, OutcomeUnknown)):
                self._keep(cell, error)
                continue
            had_timers = len(cell.deadlines) > 0 or cell.rung
            self._drop(cell, error)
            if had_timers and not isinstance(error, Fenced):
                self._reload_later(cell.key, 0)

    def _keep(self, cell: _Cell[S, R], error: PlatformError) -> None:
        """Nothing of what was staged has happened: the state in force stays. Rules of such states park no waiters."""
        cell.flying, cell.kept = False, True
        staged, cell.staged = cell.staged, []
        for reply in (reply for decision in staged for reply in decision.replies):
            self._answer(cell, reply.waiter, error)
        # A timer may have fired without effect. Not retried at once: what just failed would fail again.
        delay_ms = _RELOAD_DELAYS_MS[0]
        self._alarms.call_at(self._alarms.time() + delay_ms / 1000, partial(self._set_timers, cell))
        self._drain(cell)

    def _set_timers(self, cell: _Cell[S, R]) -> None:
        if self._cells.get(cell.key) is cell and not (cell.flying or cell.staged):  # Else set when it ends.
            self._renew_timers(cell)
            self._ring(cell.key)
            self._rest(cell)

    def _renew_timers(self, cell: _Cell[S, R]) -> None:
        if cell.kept and cell.state is not None:
            self._adopt(cell, self._rules.restored(cell.key, cell.state, self._clock.now_ms()))
        cell.kept = False

    def _adopt(self, cell: _Cell[S, R], decision: Decision[S, R], *, is_news: bool = True) -> None:
        """Evolve: the decision is durable, or has no records."""
        if is_news and (decision.state is None) != (cell.state is None):
            self._on_presence(cell.key, decision.state is not None)
            if decision.state is None:
                cell.deadlines.clear()  # Without a state there are no deadlines.
        if decision.state is not cell.state or decision.records:
            cell.state = decision.state
            self._last_revision += 1
            cell.revision = self._last_revision
        for timer in decision.timers:
            cell.deadlines.set(timer.name, timer.delay_ms)
        for reply in decision.replies:
            self._answer(cell, reply.waiter, reply.answer)

    def _answer(self, cell: _Cell[S, R], waiter: Waiter | None, answer: object) -> None:
        future = cell.waiting.pop(waiter, None) if waiter is not None else None
        if future is None or future.done():  # Done: the caller was cancelled.
            return
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    def _ring(self, key: Key) -> None:
        """Fire the timers that are due."""
        cell = self._cells.get(key)
        if cell is None or cell.flying or not cell.loaded or self._closed:
            return  # `_landed` rings again.
        while (name := cell.deadlines.due(but_not=cell.moved())) is not None:
            cell.mailbox.append(_Command(partial(self._expired, key, name), None))
            self._drain(cell)
            cell.rung = bool(cell.staged)
        if not cell.staged:
            cell.deadlines.rearm()

    def _expired(self, key: Key, timer: str, state: S | None, now_ms: int) -> Decision[S, R]:
        return self._rules.expired(key, state, timer, now_ms)

    def _drop(self, cell: _Cell[S, R], error: PlatformError) -> None:
        """Drop a cell from memory and fail all its waiters."""
        cell.deadlines.clear()
        cell.mailbox.clear()
        cell.staged.clear()
        if self._cells.get(cell.key) is cell:
            del self._cells[cell.key]
            self._stir(cell.key)
            self._staged.pop(cell.key, None)
            self._left(cell)
        for waiter in list(cell.waiting):
            self._answer(cell, waiter, error)

    def _reload_later(self, key: Key, attempt: int) -> None:
        """Members of a dropped state must still time out: load it again even if no request comes."""
        delay_ms = _RELOAD_DELAYS_MS[min(attempt, len(_RELOAD_DELAYS_MS) - 1)]
        self._alarms.call_at(self._alarms.time() + delay_ms / 1000, partial(self._reload, key, attempt))

    def _reload(self, key: Key, attempt: int) -> None:
        cell = self._cells.get(key)
        if self._closed:
            return
        if cell is None:
            self._spawn(self._load(self._new_cell(key), reload=attempt))
        elif not cell.loaded:  # A request is loading it, and gets the error.
            self._reload_later(key, attempt)

    def _rest(self, cell: _Cell[S, R]) -> None:
        """Cache an idle cell; evict the least recently used ones."""
        if not cell.idle() or self._cells.get(cell.key) is not cell:
            return
        self._stir(cell.key)
        weight = self._idle[cell.key] = 1 if cell.state is None else self._weigh(cell.state)
        self._idle_weight += weight
        while len(self._idle) > self._idle_cells_max or self._idle_weight > self._idle_weight_max:
            key = next(iter(self._idle))
            self._stir(key)
            oldest = self._cells.pop(key)
            oldest.deadlines.clear()
            self._left(oldest)

    def _left(self, cell: _Cell[S, R]) -> None:
        """A cell was evicted. Unless its state is stored, the state is gone."""
        if cell.state is not None and not self._outlives(cell.state):
            self._on_presence(cell.key, False)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@dataclass(frozen=True, slots=True)
class _Peeked:
    state: Any


def _answered(state: S | None, waiter: Waiter, peeked: S | None) -> Decision[S, R]:
    return Decision(state=state, replies=(Reply(waiter, _Peeked(peeked)),))

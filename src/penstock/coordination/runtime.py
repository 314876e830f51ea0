"""The coordinator runtime: decide → persist → evolve → reply, like that of Kafka's coordinators.

Every key has an *entry* in memory: its state in force, and the decisions that are not durable yet.

    request ──► decide on the state ──► no records: in force at once, replies are sent
                                   └──► records: staged ─► next transaction ─► in force, replies are sent

- While nothing is staged, a decision without records (a heartbeat) takes effect immediately and writes nothing.
- A decision with records is staged. Later requests of the key are decided on the staged state and wait with it, so no
  reply is ever based on a state that is not durable.
- One transaction runs at a time and contains everything staged of all keys; while it runs, requests of those keys
  wait in their mailboxes and other keys continue. So one transaction commits many decisions (group commit), without a
  timer.
- A failed write drops the whole entry from memory: all its waiters get a retriable error, and the state is loaded
  again. Nothing of the failed decisions was visible. With `keeps_states`, for states that are largely in memory only,
  the state in force is kept, and only waiters of the failed decisions get the error, unless the outcome is unknown.
- The store may refuse a record that no state depends on. Then its decision stands, but its replies are wrong: their
  waiters get a retriable error.
- Timers are decided like requests, but not during a transaction, nor when a staged decision will reset them.

Entries without timers and waiters are cached, least recently used evicted first, limited by number and by total weight.
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
from penstock.coordination.model import CoordinatorLoading, Decision, Journal, Key, R, Reply, Rules, S, Waiter
from penstock.coordination.timers import Deadlines, Scheduler

T = TypeVar("T")

_logger = logging.getLogger(__name__)

_RELOAD_DELAYS_MS = (200, 500, 1000, 2000, 5000)
"""Pauses before a dropped state with timers is loaded again; the last one repeats."""


@dataclass(frozen=True, slots=True)
class _Command(Generic[S, R]):
    """A rule to apply to the state of an entry, with its waiter if a request submitted it."""

    decide: Callable[[S | None, int], Decision[S, R]]
    waiter: Waiter | None
    if_revision: int | None = None


def _always_stored(state: object) -> bool:
    """Every state is in the store."""
    return True


def _same_weight(state: object) -> int:
    """All states weigh the same."""
    return 1


def _ignore_presence(key: Key, is_there: bool) -> None:
    pass


class _Entry(Generic[S, R]):
    """One key's state in memory."""

    __slots__ = (
        "deadlines", "in_flight", "key", "loaded", "mailbox", "revision", "staged", "state", "timer_pending",
        "timers_stale", "waiting",
    )  # fmt: skip

    def __init__(self, key: Key, scheduler: Scheduler, on_due: Callable[[], None]) -> None:
        self.key = key
        self.state: S | None = None
        self.loaded = False
        self.in_flight = False
        """Whether the running transaction writes its decisions."""
        self.timers_stale = False
        """Whether its timers must be set again, after a failed write."""
        self.timer_pending = False
        """Whether a timer has fired whose decision is not durable yet."""
        self.revision = 0
        self.staged: list[Decision[S, R]] = []
        self.mailbox: deque[_Command[S, R]] = deque()
        self.waiting: dict[Waiter, asyncio.Future[object]] = {}
        self.deadlines = Deadlines(scheduler, on_due)

    def timers_to_reset(self) -> frozenset[str]:
        """Timers that staged decisions will reset."""
        return frozenset(timer.name for decision in self.staged for timer in decision.timers)

    def is_idle(self) -> bool:
        """Whether nothing would be lost by evicting the entry."""
        is_busy = self.in_flight or self.timers_stale or self.staged or self.waiting or self.mailbox
        return self.loaded and not is_busy and len(self.deadlines) == 0


class CoordinatorRuntime(Generic[S, R]):
    """Runs rules over the states of all keys this process coordinates."""

    def __init__(
        self, *, journal: Journal[S, R], rules: Rules[S, R], clock: Clock, scheduler: Scheduler,
        idle_states_max: int = 4096, keeps_states: bool = False, is_stored: Callable[[S], bool] = _always_stored,
        on_presence: Callable[[Key, bool], None] = _ignore_presence, weigh: Callable[[S], int] = _same_weight,
        idle_weight_max: int = 2**31,
    ) -> None:  # fmt: skip
        self._journal, self._rules, self._clock, self._scheduler = journal, rules, clock, scheduler
        self._idle_states_max, self._keeps_states = idle_states_max, keeps_states
        self._is_stored, self._on_presence = is_stored, on_presence
        """Whether a state is in the store, so that it survives eviction; and a callback for when a key gets a state, or
        loses it."""
        self._weigh, self._idle_weight_max = weigh, idle_weight_max
        self._entries: dict[Key, _Entry[S, R]] = {}
        self._idle: OrderedDict[Key, int] = OrderedDict()
        """Weights of idle entries, least recently used first."""
        self._idle_weight = 0
        self._staged: dict[Key, _Entry[S, R]] = {}
        self._in_flight: list[_Entry[S, R]] = []
        """The entries that the running transaction writes."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._writing = False
        self._open = self._closed = False
        self._last_waiter = self._last_revision = 0

    async def open(self) -> None:
        """Take the slots and load the states that have timers. Until it returns, requests get `CoordinatorLoading`."""
        for key, state in await self._journal.open():
            entry = self._new_entry(key)
            try:
                self._restore(entry, state)
            except Exception as problem:  # noqa: BLE001  # raised again for the caller
                self._load_failed(entry, problem, None)
        self._open = True

    def require_open(self) -> None:
        """Raise the error for requests that come before `open` or after `close`."""
        if self._closed:
            raise Unavailable("the coordinator is shutting down")
        if not self._open:
            raise CoordinatorLoading("the coordinator is reading its state")

    async def close(self) -> None:
        """Accept no more requests, finish accepted writes, and fail the remaining waiters."""
        self._closed = True
        while self._tasks:
            await asyncio.wait(self._tasks)
        for entry in list(self._entries.values()):
            self._drop(entry, Unavailable("the coordinator is shutting down"))

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
        decision could not be made durable, `CoordinatorLoading` before `open` is through, and `Conflict` if the state
        is no longer of the revision that `peek` returned.
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
        entry = self._entry_of(key)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        entry.waiting[waiter] = future
        entry.mailbox.append(_Command(lambda state, now_ms: decide(state, waiter, now_ms), waiter, if_revision))
        self._process_mailbox(entry)
        return future

    async def await_durable(self, key: Key) -> None:
        """Wait until everything decided so far under a key is durable, so that the store may be read."""
        entry = self._entries.get(key)
        if entry is not None and entry.loaded and (entry.in_flight or entry.staged):
            await self.peek(key)

    async def await_durable_where(self, matches: Callable[[Key], bool]) -> None:
        """The same for every key that matches; failed writes are not waited for again."""
        unwritten = [entry.key for entry in (*self._in_flight, *self._staged.values()) if matches(entry.key)]
        for key in dict.fromkeys(unwritten):
            with suppress(PlatformError):
                await self.await_durable(key)

    def keys_where(self, matches: Callable[[Key], bool]) -> list[Key]:
        """The keys that match and have an entry in memory."""
        return [key for key in self._entries if matches(key)]

    def drop_where(self, matches: Callable[[Key], bool]) -> list[Key]:
        """Drop the entries of keys whose rows another transaction deleted, with a retriable error for their waiters.
        Nothing may be in flight for them. Returns the keys."""
        gone = self.keys_where(matches)
        for key in gone:
            self._drop(self._entries[key], Unavailable("the state has been deleted"))
        return gone

    async def peek(self, key: Key) -> tuple[S | None, int]:
        """The state under a key once it is durable, and its revision: a number that changes with the state."""
        snapshot = await self.submit(key, lambda state, waiter, _: _reply_with(state, waiter, state), _Snapshot)
        entry = self._entries.get(key)
        return snapshot.state, entry.revision if entry is not None else 0

    def current(self, key: Key) -> tuple[bool, S | None]:
        """(True, state) if the state is in memory and nothing in flight would change it."""
        entry = self._entries.get(key)
        if entry is None or not entry.loaded or entry.in_flight or entry.staged or entry.mailbox:
            return False, None
        return True, entry.state

    def latest_decided(self, key: Key) -> tuple[bool, S | None]:
        """(True, state) if the state is in memory, as of the last decision, durable or not."""
        entry = self._entries.get(key)
        if entry is None or not entry.loaded:
            return False, None
        return True, entry.staged[-1].state if entry.staged else entry.state

    def states(self) -> Iterator[tuple[Key, S | None]]:
        """Every state in memory, as in force now."""
        return ((key, entry.state) for key, entry in list(self._entries.items()) if entry.loaded)

    def _entry_of(self, key: Key) -> _Entry[S, R]:
        entry = self._entries.get(key)
        if entry is None:
            entry = self._new_entry(key)
            self._spawn(self._load(entry, reload=None))
        self._unmark_idle(key)
        return entry

    def _unmark_idle(self, key: Key) -> None:
        self._idle_weight -= self._idle.pop(key, 0)

    def _new_entry(self, key: Key) -> _Entry[S, R]:
        entry = self._entries[key] = _Entry(key, self._scheduler, partial(self._fire_timers, key))
        return entry

    async def _load(self, entry: _Entry[S, R], *, reload: int | None) -> None:
        try:
            state = await self._journal.load(entry.key)
            if self._entries.get(entry.key) is entry:  # Else it was dropped while it was read.
                self._restore(entry, state)
        except Exception as problem:  # noqa: BLE001  # waiters get it: they must not wait for ever
            self._load_failed(entry, problem, reload)
        else:
            self._process_mailbox(entry)

    def _load_failed(self, entry: _Entry[S, R], problem: Exception, reload: int | None) -> None:
        """A state could not be loaded. Even if a bug caused that, only this state is affected."""
        if isinstance(problem, PlatformError):
            error = problem
        else:
            _logger.error("the state of %s cannot be read", entry.key, exc_info=problem)
            error = Unavailable(f"the state cannot be read: {problem}")
        self._drop(entry, error)
        if reload is not None and not isinstance(error, Fenced):
            self._reload_later(entry.key, reload + 1)

    def _restore(self, entry: _Entry[S, R], state: S | None) -> None:
        entry.loaded = True
        decision: Decision[S, R] = Decision(state=None)
        if state is not None:
            decision = self._rules.restored(entry.key, state, self._clock.now_ms())
        self._apply(entry, decision, is_change=False)
        self._mark_idle(entry)

    def _process_mailbox(self, entry: _Entry[S, R]) -> None:
        """Decide everything in the mailbox, unless a load or a transaction must end first."""
        while entry.mailbox and entry.loaded and not entry.in_flight:
            command = entry.mailbox.popleft()
            if command.if_revision is not None and (entry.staged or command.if_revision != entry.revision):
                self._answer(entry, command.waiter, Conflict(f"{entry.key} has changed meanwhile"))
                continue
            try:
                decision = command.decide(entry.staged[-1].state if entry.staged else entry.state, self._clock.now_ms())
            except PlatformError as refusal:
                self._answer(entry, command.waiter, refusal)
                continue
            except Exception as bug:
                # A failing rule fails this request only: nothing of it has happened.
                _logger.exception("a coordination rule failed for %s", entry.key)
                self._answer(entry, command.waiter, bug)
                continue
            if decision.records or entry.staged:
                entry.staged.append(decision)
                self._staged[entry.key] = entry
            else:
                self._apply(entry, decision)
        if self._staged and not self._writing:
            self._writing = True
            self._spawn(self._write())
        self._mark_idle(entry)

    async def _write(self) -> None:
        """Run transactions until nothing is staged."""
        while self._staged:
            entries, self._staged = list(self._staged.values()), {}
            for entry in entries:
                entry.in_flight = True
            self._in_flight = entries
            await self._commit(entries)
            self._in_flight = []
        self._writing = False

    async def _commit(self, entries: list[_Entry[S, R]]) -> None:
        """One transaction for all of these entries. If one of them cannot be written, only that one fails."""
        decided = [
            (entry.key, record, decision)
            for entry in entries for decision in entry.staged for record in decision.records
        ]  # fmt: skip
        try:
            refused = await self._journal.write([(key, record) for key, record, _ in decided])
        except PlatformError as error:
            self._write_failed(entries, error)
        except Exception as bug:
            if len(entries) > 1:
                for entry in entries:
                    await self._commit([entry])
                return
            _logger.exception("a coordination write for %s failed", entries[0].key)
            self._write_failed(entries, Unavailable(f"a write failed: {bug}"))
        else:
            refused_decisions = {id(decided[number][2]) for number in refused}
            for entry in entries:
                self._write_succeeded(entry, refused_decisions)

    def _write_succeeded(self, entry: _Entry[S, R], refused_decisions: Container[int]) -> None:
        entry.in_flight = entry.timer_pending = False
        staged, entry.staged = entry.staged, []
        for decision in staged:
            if id(decision) in refused_decisions:
                for reply in decision.replies:
                    self._answer(entry, reply.waiter, CoordinatorLoading("the store refused a record: ask again"))
            self._apply(entry, decision)
        self._renew_timers(entry)
        self._process_mailbox(entry)  # Before timers fire: mailbox requests may move them.
        self._fire_timers(entry.key)

    def _write_failed(self, entries: list[_Entry[S, R]], error: PlatformError) -> None:
        for entry in entries:
            if self._keeps_states and not isinstance(error, (Fenced, OutcomeUnknown)):
                self._discard_staged(entry, error)
                continue
            had_timers = len(entry.deadlines) > 0 or entry.timer_pending
            self._drop(entry, error)
            if had_timers and not isinstance(error, Fenced):
                self._reload_later(entry.key, 0)

    def _discard_staged(self, entry: _Entry[S, R], error: PlatformError) -> None:
        """Nothing of what was staged has happened: the state in force stays. Rules of such states park no waiters."""
        entry.in_flight, entry.timers_stale = False, True
        staged, entry.staged = entry.staged, []
        for reply in (reply for decision in staged for reply in decision.replies):
            self._answer(entry, reply.waiter, error)
        # A timer may have fired without effect. Not retried at once: what just failed would fail again.
        delay_ms = _RELOAD_DELAYS_MS[0]
        self._scheduler.call_at(self._scheduler.time() + delay_ms / 1000, partial(self._set_timers, entry))
        self._process_mailbox(entry)

    def _set_timers(self, entry: _Entry[S, R]) -> None:
        if self._entries.get(entry.key) is entry and not (entry.in_flight or entry.staged):  # Else set when it ends.
            self._renew_timers(entry)
            self._fire_timers(entry.key)
            self._mark_idle(entry)

    def _renew_timers(self, entry: _Entry[S, R]) -> None:
        if entry.timers_stale and entry.state is not None:
            self._apply(entry, self._rules.restored(entry.key, entry.state, self._clock.now_ms()))
        entry.timers_stale = False

    def _apply(self, entry: _Entry[S, R], decision: Decision[S, R], *, is_change: bool = True) -> None:
        """Evolve: the decision is durable, or has no records."""
        if is_change and (decision.state is None) != (entry.state is None):
            self._on_presence(entry.key, decision.state is not None)
            if decision.state is None:
                entry.deadlines.clear()  # Without a state there are no deadlines.
        if decision.state is not entry.state or decision.records:
            entry.state = decision.state
            self._last_revision += 1
            entry.revision = self._last_revision
        for timer in decision.timers:
            entry.deadlines.set(timer.name, timer.delay_ms)
        for reply in decision.replies:
            self._answer(entry, reply.waiter, reply.answer)

    def _answer(self, entry: _Entry[S, R], waiter: Waiter | None, answer: object) -> None:
        future = entry.waiting.pop(waiter, None) if waiter is not None else None
        if future is None or future.done():  # Done: the caller was cancelled.
            return
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    def _fire_timers(self, key: Key) -> None:
        """Fire the timers that are due."""
        entry = self._entries.get(key)
        if entry is None or entry.in_flight or not entry.loaded or self._closed:
            return  # `_write_succeeded` will call this.
        while (name := entry.deadlines.pop_due(except_for=entry.timers_to_reset())) is not None:
            entry.mailbox.append(_Command(partial(self._expired, key, name), None))
            self._process_mailbox(entry)
            entry.timer_pending = bool(entry.staged)
        if not entry.staged:
            entry.deadlines.reschedule()

    def _expired(self, key: Key, timer: str, state: S | None, now_ms: int) -> Decision[S, R]:
        return self._rules.expired(key, state, timer, now_ms)

    def _drop(self, entry: _Entry[S, R], error: PlatformError) -> None:
        """Drop an entry from memory and fail all its waiters."""
        entry.deadlines.clear()
        entry.mailbox.clear()
        entry.staged.clear()
        if self._entries.get(entry.key) is entry:
            del self._entries[entry.key]
            self._unmark_idle(entry.key)
            self._staged.pop(entry.key, None)
            self._evicted(entry)
        for waiter in list(entry.waiting):
            self._answer(entry, waiter, error)

    def _reload_later(self, key: Key, attempt: int) -> None:
        """Members of a dropped state must still time out: load it again even if no request comes."""
        delay_ms = _RELOAD_DELAYS_MS[min(attempt, len(_RELOAD_DELAYS_MS) - 1)]
        self._scheduler.call_at(self._scheduler.time() + delay_ms / 1000, partial(self._reload, key, attempt))

    def _reload(self, key: Key, attempt: int) -> None:
        entry = self._entries.get(key)
        if self._closed:
            return
        if entry is None:
            self._spawn(self._load(self._new_entry(key), reload=attempt))
        elif not entry.loaded:  # A request is loading it, and gets the error.
            self._reload_later(key, attempt)

    def _mark_idle(self, entry: _Entry[S, R]) -> None:
        """Cache an idle entry; evict the least recently used ones."""
        if not entry.is_idle() or self._entries.get(entry.key) is not entry:
            return
        self._unmark_idle(entry.key)
        weight = self._idle[entry.key] = 1 if entry.state is None else self._weigh(entry.state)
        self._idle_weight += weight
        while len(self._idle) > self._idle_states_max or self._idle_weight > self._idle_weight_max:
            key = next(iter(self._idle))
            self._unmark_idle(key)
            oldest = self._entries.pop(key)
            oldest.deadlines.clear()
            self._evicted(oldest)

    def _evicted(self, entry: _Entry[S, R]) -> None:
        """An entry was evicted. Unless its state is stored, the state is gone."""
        if entry.state is not None and not self._is_stored(entry.state):
            self._on_presence(entry.key, False)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@dataclass(frozen=True, slots=True)
class _Snapshot:
    state: Any


def _reply_with(state: S | None, waiter: Waiter, snapshot: S | None) -> Decision[S, R]:
    return Decision(state=state, replies=(Reply(waiter, _Snapshot(snapshot)),))

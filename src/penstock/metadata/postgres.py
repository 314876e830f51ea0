"""PostgreSQL behind the metadata port.

Transactions are SERIALIZABLE: as if each were alone, like on SQLite. The price is that the server may tell one of two
that met to start over; that happens here, a bounded number of times with random pauses. Reads run on one snapshot.
Single statements, and transactions that lock by themselves, are READ COMMITTED: what they wait for they see afterwards.

Commits, reads and background work have connections of their own, so that a slow listing never delays a produce.
Every call has a time limit. When the connection breaks or the time is up while a commit is under way, nobody can say
whether it happened: `OutcomeUnknown`. Anywhere else nothing happened: `Unavailable`.

The address contains a password, so no error repeats it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import asyncpg

from penstock.base.clock import SystemClock
from penstock.base.durations import Durations
from penstock.base.errors import Conflict, CorruptData, InvalidRequest, OutcomeUnknown, Unavailable
from penstock.base.randomness import Randomness
from penstock.metadata.database import Rows, Script

if TYPE_CHECKING:
    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]

T = TypeVar("T")

COMMIT_CONNECTIONS = 4
"""More committers only queue on the same rows."""
READ_CONNECTIONS = 4
BACKGROUND_CONNECTIONS = 2
_KINDS = {"commits": "write", "reads": "read", "background": "background"}
"""What each pool is for."""

_CONNECT_TIMEOUT_S = 5
_COMMIT_TIMEOUT_S = 10
_READ_TIMEOUT_S = 30
_BACKGROUND_TIMEOUT_S = 120
_CLOSE_TIMEOUT_S = 5
_ATTEMPTS = 20
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.002, 0.2

_SERIALIZABLE = "BEGIN ISOLATION LEVEL SERIALIZABLE"
_LOCKING = "BEGIN ISOLATION LEVEL READ COMMITTED"
_SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

_START_OVER = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError, asyncpg.InvalidCachedStatementError)
"""(The last: another agent has migrated the tables meanwhile.)"""
_BROKEN = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.StatementCompletionUnknownError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TransactionTimeoutError,
    asyncpg.InternalClientError,
)
"""The server is gone or did not answer. (The last: asyncpg when it is told so between two calls.)"""
_REFUSED = (
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.LockNotAvailableError,
    asyncpg.InsufficientPrivilegeError,
)
"""The server answered that it cannot, or may not."""
_DUPLICATE = (asyncpg.DuplicateTableError, asyncpg.DuplicateObjectError)
"""`CREATE TABLE IF NOT EXISTS` by two at once."""
_CORRUPT = (asyncpg.DataCorruptedError, asyncpg.IndexCorruptedError)
_SICK = (asyncpg.PostgresSystemError, asyncpg.InternalServerError)
"""The server's disk has failed, or something that must not happen did."""

_ESCAPE, _NUL, _ITSELF = "\x10", "\x100", "\x101"
"""Text has no NUL here, but names that clients choose may have one: it is written as two characters, and so is what
begins these."""


class PostgresDatabase:
    """A PostgreSQL database, shared by any number of agents."""

    dialect = "postgres"

    def __init__(
        self, dsn: str, *, randomness: Randomness, now: Callable[[], float] = SystemClock.monotonic
    ) -> None:  # fmt: skip
        self._dsn, self._randomness, self._now = dsn, randomness, now
        self.durations: Mapping[str, Durations] = {kind: Durations() for kind in _KINDS.values()}
        """From asking until there is an answer, with waiting for a connection and with starting over."""
        self._where = describe(dsn)
        self._pools: dict[str, Pool] = {}

    async def open(self) -> None:
        """Connect; raises `Unavailable` when that is not possible."""
        if self._pools:
            return
        self._pools = {
            "commits": self._pool(COMMIT_CONNECTIONS, _COMMIT_TIMEOUT_S),
            "reads": self._pool(READ_CONNECTIONS, _READ_TIMEOUT_S),
            "background": self._pool(BACKGROUND_CONNECTIONS, _BACKGROUND_TIMEOUT_S),
        }
        try:
            for pool in self._pools.values():
                await pool
            async with self._connection("commits"):
                pass
        except BaseException:
            await self.close()
            raise

    def _pool(self, size: int, timeout_s: float) -> Pool:
        try:
            return asyncpg.create_pool(
                self._dsn,
                min_size=0,
                max_size=size,
                timeout=_CONNECT_TIMEOUT_S,
                command_timeout=timeout_s,
                init=_set_codecs,
                reset=_leave_as_it_is,
            )
        except (ValueError, asyncpg.InterfaceError):
            raise _unreadable() from None  # Their text may quote a piece of the password.

    async def close(self) -> None:
        """Let running calls finish for a while, then disconnect."""
        pools, self._pools = list(self._pools.values()), {}
        for pool in pools:
            try:
                await asyncio.wait_for(pool.close(), _CLOSE_TIMEOUT_S)
            except (TimeoutError, *_BROKEN, asyncpg.InterfaceError):
                pool.terminate()

    async def transaction(
        self, script: Callable[[], Script[T]], *, background: bool = False, locking: bool = False
    ) -> T:
        """Run a script, all or nothing, as if it were alone."""
        begin = _LOCKING if locking else _SERIALIZABLE
        return await self._run("background" if background else "commits", partial(_attempt, begin=begin, script=script))

    async def statement(self, sql: str, args: Sequence[Any] = ()) -> Rows:
        """Run one statement in one round trip."""
        return await self._run("commits", partial(_attempt_one, sql=sql, args=args))

    async def read(self, script: Callable[[], Script[T]]) -> T:
        """Run a script on one snapshot."""
        return await self._run("reads", partial(_attempt, begin=_SNAPSHOT, script=script))

    async def _run(self, pool: str, attempt_on: Callable[[Connection], Awaitable[T]]) -> T:
        began_s = self._now()
        try:
            return await self._try(pool, attempt_on)
        finally:
            self.durations[_KINDS[pool]].add(self._now() - began_s)

    async def _try(self, pool: str, attempt_on: Callable[[Connection], Awaitable[T]]) -> T:
        for attempt in range(_ATTEMPTS):
            try:
                async with self._connection(pool) as connection:
                    return await attempt_on(connection)
            except _START_OVER:
                longest_s = min(_FIRST_PAUSE_S * 2**attempt, _LONGEST_PAUSE_S)
                await asyncio.sleep(self._randomness.uniform(0, longest_s))
        raise Unavailable(f"other transactions won {_ATTEMPTS} times in a row; nothing was stored")

    @asynccontextmanager
    async def _connection(self, name: str) -> AsyncIterator[Connection]:
        pool = self._pools.get(name)
        if pool is None:
            raise Unavailable("the database is closed")
        try:
            connection = await pool.acquire(timeout=_CONNECT_TIMEOUT_S)
        except TimeoutError:
            raise Unavailable(f"no connection to {self._where} within {_CONNECT_TIMEOUT_S} s") from None
        except (asyncpg.ClientConfigurationError, ValueError):
            raise _unreadable() from None
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise Unavailable(f"cannot connect to {self._where}: {error}") from error
        try:
            yield connection
        finally:
            await pool.release(connection)


async def _attempt(connection: Connection, begin: str, script: Callable[[], Script[T]]) -> T:
    try:
        await connection.execute(begin)
        answer = await _drive(connection, script)
    except BaseException as error:
        await _undo(connection, error)
        known = _failure(error, connection)
        if known is error:
            raise
        raise known from error
    try:
        await connection.execute("COMMIT")
    except (*_BROKEN, asyncpg.InterfaceError) as error:
        _drop(connection)
        raise OutcomeUnknown("the connection was lost during a commit, which may have happened") from error
    except asyncpg.PostgresError as error:
        known = _last_failure(error, connection)
        if known is error:
            raise
        raise known from error
    return answer


async def _attempt_one(connection: Connection, sql: str, args: Sequence[Any]) -> Rows:
    try:
        return [tuple(row) for row in await connection.fetch(sql, *args)]
    except (*_BROKEN, asyncpg.InterfaceError, asyncio.CancelledError) as error:
        if isinstance(error, ValueError):
            raise  # An argument that fits no column.
        _drop(connection)
        if isinstance(error, asyncio.CancelledError):
            raise
        raise OutcomeUnknown("the connection was lost during a statement, which may have happened") from error
    except asyncpg.PostgresError as error:
        known = _last_failure(error, connection)
        if known is error:
            raise
        raise known from error


async def _drive(connection: Connection, script: Callable[[], Script[T]]) -> T:
    steps = script()
    try:
        sql, args = next(steps)
        while True:
            rows = await connection.fetch(sql, *args)
            sql, args = steps.send([tuple(row) for row in rows])
    except StopIteration as end:
        answer: T = end.value
        return answer
    finally:
        steps.close()


async def _undo(connection: Connection, error: BaseException) -> None:
    """Roll back; where the connection may be in the middle of something, drop it, and the server will."""
    if isinstance(error, (*_BROKEN, asyncpg.InterfaceError)) or not isinstance(error, Exception):
        _drop(connection)
        return
    try:
        await connection.execute("ROLLBACK")
    except (*_BROKEN, asyncpg.InterfaceError, asyncpg.PostgresError):
        _drop(connection)


def _drop(connection: Connection) -> None:
    """Close without a word to the server."""
    with suppress(asyncpg.InterfaceError):  # It is closed already.
        connection.terminate()


def _failure(error: BaseException, connection: Connection) -> BaseException:
    """What an error before the end of a commit asks of the caller; one that is a bug of ours stays as it is."""
    if isinstance(error, _START_OVER):
        return error
    if isinstance(error, (asyncpg.IntegrityConstraintViolationError, *_DUPLICATE)):
        return Conflict(str(error))
    if isinstance(error, _CORRUPT):
        return CorruptData(f"PostgreSQL reports damaged data: {error}. Restore it from a backup")
    if isinstance(error, asyncpg.DiskFullError):
        return Unavailable("the disk of the PostgreSQL server is full; nothing was stored")
    if isinstance(error, (*_BROKEN, *_REFUSED, *_SICK)):
        return Unavailable(f"PostgreSQL failed before the commit, nothing was stored: {error or 'no answer in time'}")
    if isinstance(error, asyncpg.InterfaceError) and not isinstance(error, ValueError) and connection.is_closed():
        return Unavailable("the connection to PostgreSQL was lost before the commit; nothing was stored")
    return error


def _last_failure(error: asyncpg.PostgresError, connection: Connection) -> BaseException:
    """The same for an error of the commit itself. A server in trouble is not believed that nothing happened."""
    if isinstance(error, _SICK) and not isinstance(error, _CORRUPT):
        return OutcomeUnknown(f"PostgreSQL failed during a commit, which may have happened: {error}")
    return _failure(error, connection)


async def _leave_as_it_is(connection: asyncpg.Connection[asyncpg.Record] | Connection) -> None:
    """Spare the round trip that resets a session: nothing here changes one."""


async def _set_codecs(connection: asyncpg.Connection[asyncpg.Record] | Connection) -> None:
    """Take any text, and hand out what SQLite does: sums of integers come as numeric."""
    await connection.set_type_codec("text", schema="pg_catalog", encoder=escaped, decoder=unescaped, format="text")
    await connection.set_type_codec("numeric", schema="pg_catalog", encoder=str, decoder=_number, format="text")


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("-").isdigit() else float(text)


def escaped(text: str) -> str:
    """How a text is stored: as it is, unless it has a NUL or looks as if it had."""
    if "\0" not in text and _ESCAPE not in text:
        return text
    return text.replace(_ESCAPE, _ITSELF).replace("\0", _NUL)


def unescaped(text: str) -> str:
    """The text that was stored."""
    return text.replace(_NUL, "\0").replace(_ITSELF, _ESCAPE) if _ESCAPE in text else text


def describe(dsn: str) -> str:
    """Where an address points to, without its password."""
    try:
        parts = urlsplit(dsn)
        place: Any = parts.hostname or parse_qs(parts.query).get("host", [""])[0] or "localhost"
        port, name = parts.port, parts.path.lstrip("/")
    except ValueError:
        return "PostgreSQL"
    if "@" in name + place:  # The password contains a slash: what looks like the path is a piece of it.
        return "PostgreSQL"
    return f"PostgreSQL at {place}{f':{port}' if port else ''}{f', database {name}' if name else ''}"


def _unreadable() -> InvalidRequest:
    return InvalidRequest(
        "the address of the database is not readable. It looks like postgresql://user:password@host:5432/database;"
        " special characters in the password are written as %XX"
    )

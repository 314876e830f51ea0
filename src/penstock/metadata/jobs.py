"""A unit of work and the future of its result."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

from penstock.metadata.sqlite_engine import Work, failure


class Job:
    """Run `work` in `with job:`. An exception raised in the body becomes the result."""

    __slots__ = ("answer", "error", "future", "is_read", "since_s", "work")

    def __init__(
        self, work: Work[Any], future: asyncio.Future[Any], *, is_read: bool, since_s: float = 0.0
    ) -> None:  # fmt: skip
        self.work, self.future, self.is_read = work, future, is_read
        self.since_s = since_s
        """When it was submitted."""
        self.answer: Any = None
        self.error: BaseException | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is not None:
            self.fail(error)
        return True

    def fail(self, error: BaseException) -> None:
        """Set an error as the result."""
        self.error = failure(error)
        if self.error is not error:
            self.error.__cause__ = error

    def settle(self) -> None:
        """Resolve the future, unless its caller was cancelled. On the loop's thread."""
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.answer)
        else:
            self.future.set_exception(self.error)

"""The few failures we raise on purpose. The type says what the caller does next; the message says what happened.

    PlatformError
     +- InvalidRequest    change the request
     +- Conflict          somebody else won, nothing was written: re-read and decide again
     +- Fenced            a newer epoch owns this: stop
     +- Unavailable       a dependency failed before it could act: safe to retry as is
     +- OutcomeUnknown    the write may have happened: look it up before anything else
     +- CorruptData       stored bytes break an invariant: refuse to serve them

Any other exception is a bug of ours.
"""

from __future__ import annotations


class PlatformError(Exception):
    """Base of every failure we raise on purpose."""


class InvalidRequest(PlatformError):
    """The caller must change the request."""


class Conflict(PlatformError):
    """Someone else won; nothing was written. Re-read and decide again."""


class Fenced(PlatformError):
    """A newer epoch owns this. Stop; never retry from here."""


class Unavailable(PlatformError):
    """A dependency failed before it could act. Safe to retry as is."""


class OutcomeUnknown(PlatformError):
    """The write may or may not have happened. Look it up, or retry with the same idempotency key."""


class CorruptData(PlatformError):
    """Stored bytes break an invariant. Refuse to serve them and tell someone."""

"""A credential that proves nothing."""

from __future__ import annotations

from penstock.base.errors import InvalidRequest


class Denied(InvalidRequest):
    """Whoever this is, it is not proven. The message is shown to the client, so it tells nothing about who exists."""


class InvalidCredentials(Denied):
    """The usual case: what was sent does not fit. What the client is told is the same for every reason."""

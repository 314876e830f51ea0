"""Errors of failed authentication."""

from __future__ import annotations

from penstock.base.errors import InvalidRequest


class Denied(InvalidRequest):
    """Authentication failed. The client sees the message, so it does not reveal which names exist."""


class InvalidCredentials(Denied):
    """The usual case: wrong credentials. The client sees the same message for every reason."""

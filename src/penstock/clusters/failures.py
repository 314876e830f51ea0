"""Errors of changes to virtual clusters and environments."""

from __future__ import annotations

from penstock.base.errors import InvalidRequest


class NotFound(InvalidRequest):
    """There is no cluster or environment of that name."""


class AlreadyExists(InvalidRequest):
    """A cluster or environment of that name exists."""


class Forbidden(InvalidRequest):
    """The cluster or environment exists, but its state does not allow the change."""

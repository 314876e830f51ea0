"""Why something cannot be done to a virtual cluster or an environment."""

from __future__ import annotations

from penstock.base.errors import InvalidRequest


class Missing(InvalidRequest):
    """There is none of that name."""


class Taken(InvalidRequest):
    """There is one of that name."""


class Forbidden(InvalidRequest):
    """It is there, and that may not be done to it."""

"""What is kept of a producer that sends the same request again and again, with other records."""

from __future__ import annotations

from penstock.authorization.authorizer import Grant
from penstock.base.context import RequestContext
from penstock.quotas.throttles import Client
from penstock.wire.hot import ProduceShape


class RepeatedProduce(Grant):
    """What the requests have in common, who sends them, and what was found out about that: whether it is permitted, and
    which limits count. Either is asked for anew when what it was found in has changed since.
    """

    __slots__ = ("client", "context", "shape", "version")

    def __init__(self, shape: ProduceShape, context: RequestContext) -> None:
        super().__init__()
        self.shape, self.context = shape, context
        self.client: Client | None = None
        """Which limits count for it, as of that version of all limits."""
        self.version = -1

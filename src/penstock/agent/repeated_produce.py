"""What a connection caches of a produce request that is sent repeatedly, each time with other records."""

from __future__ import annotations

from penstock.authorization.authorizer import Grant
from penstock.base.context import RequestContext
from penstock.quotas.throttles import ClientMeters
from penstock.wire.hot import ProduceShape


class RepeatedProduce(Grant):
    """The common part of the requests, and the results of checking it: whether it is permitted, and which quotas apply.
    Each is checked again when the ACLs or the quotas have changed since.
    """

    __slots__ = ("client", "context", "shape", "version")

    def __init__(self, shape: ProduceShape, context: RequestContext) -> None:
        super().__init__()
        self.shape, self.context = shape, context
        self.client: ClientMeters | None = None
        """The quotas that apply, as of that version of all quotas."""
        self.version = -1

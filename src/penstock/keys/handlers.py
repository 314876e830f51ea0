"""The keys of clusters over the Kafka protocol. These APIs are ours, and for administrators of the platform.

Keys themselves are never told, nor taken: only what there is of them, and what becomes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum

from penstock.base.context import RequestContext
from penstock.base.errors import InvalidRequest, PlatformError
from penstock.keys.model import KeyState, LockReason
from penstock.keys.service import DataKeys
from penstock.wire.error_codes import ErrorCode
from penstock.wire.failures import change_failure
from penstock.wire.messages.alter_cluster_keys import AlterClusterKeysRequest, AlterClusterKeysResponse
from penstock.wire.messages.describe_cluster_keys import (
    DescribeClusterKeysRequest,
    DescribeClusterKeysResponse,
    DescribedClusterKeys,
)

NOT_ALLOWED = "Only platform administrators (super.users) may do this."


class Action(IntEnum):
    """What is to be done to the keys of a cluster, as the request says it."""

    ENCRYPT = 0
    ROTATE = 1
    """A new data key."""
    REWRAP = 2
    """A new master key."""
    ERASE = 3


Directory = Callable[[], Mapping[str, int]]
"""Ids of all clusters by name."""


class ClusterKeyHandlers:
    """Our APIs over `DataKeys`."""

    def __init__(self, keys: DataKeys, directory: Directory, *, is_admin: Callable[[RequestContext], bool]) -> None:
        self._keys, self._directory, self._is_admin = keys, directory, is_admin

    async def describe(
        self, context: RequestContext, request: DescribeClusterKeysRequest
    ) -> DescribeClusterKeysResponse:
        """DescribeClusterKeys, key 10020, v0: of clusters that are encrypted or were, all or those of these names."""
        if not self._is_admin(context):
            return DescribeClusterKeysResponse(
                error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED, error_message=NOT_ALLOWED
            )
        wanted = None if request.names is None else set(request.names)
        return DescribeClusterKeysResponse(
            error_message=None,
            clusters=[
                self._described(name, cluster_id)
                for name, cluster_id in sorted(self._directory().items())
                if cluster_id in self._keys.clusters and (wanted is None or name in wanted)
            ],
        )

    async def alter(self, context: RequestContext, request: AlterClusterKeysRequest) -> AlterClusterKeysResponse:
        """AlterClusterKeys, key 10021, v0: encrypt a cluster from now on (0), seal by a new data key (1), wrap data
        keys by a new master key (2), make everything unreadable for good (3)."""
        if not self._is_admin(context):
            return AlterClusterKeysResponse(
                error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED, error_message=NOT_ALLOWED
            )
        cluster_id = self._directory().get(request.name)
        if cluster_id is None:
            return AlterClusterKeysResponse(
                error_code=ErrorCode.RESOURCE_NOT_FOUND, error_message=f"there is no cluster {request.name!r}"
            )
        try:
            await self._do(cluster_id, request.action)
        except PlatformError as error:
            code, message = change_failure(error)
            return AlterClusterKeysResponse(error_code=code, error_message=message)
        return AlterClusterKeysResponse(error_message=None, state=self._state(cluster_id))

    async def _do(self, cluster_id: int, action: int) -> None:
        match action:
            case Action.ENCRYPT:
                await self._keys.encrypt(cluster_id)
            case Action.ROTATE:
                await self._keys.rotate(cluster_id)
            case Action.REWRAP:
                await self._keys.rewrap(cluster_id)
            case Action.ERASE:
                await self._keys.erase(cluster_id)
            case _:
                raise InvalidRequest(f"there is no action {action}")

    def _described(self, name: str, cluster_id: int) -> DescribedClusterKeys:
        keys = self._keys.clusters[cluster_id]
        current = self._keys.stored.get(keys.current_key_id)
        return DescribedClusterKeys(
            name=name,
            state=self._state(cluster_id),
            master_key_id=keys.master_key_id,
            data_keys=sum(key.cluster_id == cluster_id for key in self._keys.stored.values()),
            current_since_ms=-1 if current is None else current.created_ms,
        )

    def _state(self, cluster_id: int) -> str:
        keys = self._keys.clusters.get(cluster_id)
        if keys is None:
            return KeyState.ERASED.name.lower()  # And the cluster that they were erased with is gone.
        if keys.state is not KeyState.ON:
            return keys.state.name.lower()
        return "locked" if self._keys.locked.get(cluster_id) is LockReason.WAITING else "on"

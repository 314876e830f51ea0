"""ApiVersions: what this agent speaks (KIP-511)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from penstock.base.context import RequestContext
from penstock.wire.api_keys import FIRST_OWN_API, ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.api_versions import (
    ApiVersion,
    ApiVersionsRequest,
    ApiVersionsResponse,
    FinalizedFeatureKey,
    SupportedFeatureKey,
)

if TYPE_CHECKING:
    from penstock.agent.apis import Api

SOFTWARE_SINCE = 3
OWN_SOFTWARE = "penstock"
CLUSTER_SINCE = 5
ZERO_FEATURES_SINCE = 4
"""Older clients cannot read a feature that may be at level 0 (KAFKA-17011)."""
FEATURES = {
    "group.version": (0, 1, ApiKey.CONSUMER_GROUP_HEARTBEAT),
    "share.version": (0, 2, ApiKey.SHARE_GROUP_HEARTBEAT),
    "streams.version": (0, 1, ApiKey.STREAMS_GROUP_HEARTBEAT),
    "transaction.version": (0, 2, ApiKey.END_TXN),
}
"""Levels from where to where, of which the highest is the one in force, and an API that is served where the feature is
there. `transaction.version` tells clients to leave it to the broker which partitions and groups belong to a
transaction, and to go on with the epoch that EndTxn gives them (KIP-890). Apache Kafka 4.4 has three more:
`metadata.version`, `kraft.version` and `eligible.leader.replicas.version` are formats of its own metadata and
replication."""
FEATURES_EPOCH, NO_FEATURES = 0, -1
_SOFTWARE = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")


class ApiVersionsHandler:
    """Says what the table serves."""

    def __init__(self, table: Mapping[int, Api], cluster_id: Callable[[RequestContext], str]) -> None:
        self._table, self._cluster_id = table, cluster_id
        self._ranges: dict[bool, list[ApiVersion]] = {}
        """What is answered, without and with our own APIs: every connection asks, and the table does not change."""

    async def api_versions(self, context: RequestContext, request: ApiVersionsRequest) -> ApiVersionsResponse:
        """ApiVersions, key 18, v0-5. v3: flexible, the client names its software. v5: the client names the cluster
        and node it believes to reach (KIP-1242). Another cluster sends it back to its bootstrap servers; another
        node is not held against it, because agents are interchangeable. Before it is proven who asks no cluster is
        another one: credentials may open any, and which there are is not for strangers."""
        if context.api_version >= SOFTWARE_SINCE and not (
            _SOFTWARE.fullmatch(request.client_software_name) and _SOFTWARE.fullmatch(request.client_software_version)
        ):
            return ApiVersionsResponse(error_code=ErrorCode.INVALID_REQUEST)
        if context.api_version >= CLUSTER_SINCE and (request.cluster_id is None) is not (request.node_id < 0):
            return ApiVersionsResponse(error_code=ErrorCode.INVALID_REQUEST)  # Both are named, or neither.
        if context.is_proven and request.cluster_id not in (None, self._cluster_id(context)):
            return ApiVersionsResponse(error_code=ErrorCode.REBOOTSTRAP_REQUIRED)
        features = features_of(self._table)
        return ApiVersionsResponse(
            api_keys=self._ranges_for(is_own=request.client_software_name == OWN_SOFTWARE),
            supported_features=[
                SupportedFeatureKey(name=name, min_version=lowest, max_version=level)
                for name, (lowest, level) in features.items()
                if lowest or context.api_version >= ZERO_FEATURES_SINCE
            ],
            finalized_features_epoch=FEATURES_EPOCH if features else NO_FEATURES,
            finalized_features=[
                FinalizedFeatureKey(name=name, max_version_level=level, min_version_level=level)
                for name, (_, level) in features.items()
            ],
        )

    def _ranges_for(self, *, is_own: bool) -> list[ApiVersion]:
        ranges = self._ranges.get(is_own)
        if ranges is None:
            ranges = self._ranges[is_own] = [
                _range(key, api) for key, api in sorted(self._table.items()) if key < FIRST_OWN_API or is_own
            ]
        return ranges


def features_of(table: Mapping[int, Api]) -> dict[str, tuple[int, int]]:
    """The features whose APIs are served, with their levels."""
    return {name: (lowest, level) for name, (lowest, level, key) in FEATURES.items() if key in table}


def unsupported(table: Mapping[int, Api]) -> ApiVersionsResponse:
    """The answer to a version of ApiVersions that is not served: in version 0, with the versions that are."""
    key = ApiKey.API_VERSIONS
    return ApiVersionsResponse(error_code=ErrorCode.UNSUPPORTED_VERSION, api_keys=[_range(key, table[key])])


def _range(key: int, api: Api) -> ApiVersion:
    lowest = api.versions.start if api.advertised_from is None else api.advertised_from
    return ApiVersion(api_key=key, min_version=lowest, max_version=api.versions.stop - 1)

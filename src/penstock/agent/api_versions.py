"""ApiVersions: what this agent speaks (KIP-511, KAFKA.md B1)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from penstock.agent.apis import Api
from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.api_versions import ApiVersion, ApiVersionsRequest, ApiVersionsResponse

SOFTWARE_SINCE = 3
_SOFTWARE = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")


def answer(table: Mapping[int, Api], request: ApiVersionsRequest, version: int) -> ApiVersionsResponse:
    """ApiVersions, key 18, v0-5. v3: flexible, the client names its software. v5: the client names the cluster and
    node it believes to reach (KIP-1242), which is not held against it: agents are interchangeable."""
    if version >= SOFTWARE_SINCE and not (
        _SOFTWARE.fullmatch(request.client_software_name) and _SOFTWARE.fullmatch(request.client_software_version)
    ):
        return ApiVersionsResponse(error_code=ErrorCode.INVALID_REQUEST)
    return ApiVersionsResponse(api_keys=[_range(key, api) for key, api in sorted(table.items())])


def unsupported(table: Mapping[int, Api]) -> ApiVersionsResponse:
    """The answer to a version of ApiVersions that is not served: in version 0, with the versions that are."""
    key = ApiKey.API_VERSIONS
    return ApiVersionsResponse(error_code=ErrorCode.UNSUPPORTED_VERSION, api_keys=[_range(key, table[key])])


def _range(key: int, api: Api) -> ApiVersion:
    lowest = api.versions.start if api.advertised_from is None else api.advertised_from
    return ApiVersion(api_key=key, min_version=lowest, max_version=api.versions.stop - 1)

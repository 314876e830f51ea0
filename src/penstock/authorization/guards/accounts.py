"""Guards of service accounts, API keys and the caller's own virtual cluster; these APIs are Penstock's own.

DESCRIBE on the cluster to list them, ALTER to change them, else 31. Creating a key for an account needs ALTER because
whoever has the key can act as the account.
"""

from __future__ import annotations

from penstock.authorization.guards.access import CLUSTER_DENIED
from penstock.authorization.guards.cluster import needs, needs_for_each
from penstock.base.acls import Operation
from penstock.base.cooperative import map_each
from penstock.wire.messages import alter_service_accounts as altering
from penstock.wire.messages import create_api_key as creating
from penstock.wire.messages import delete_api_keys as deleting
from penstock.wire.messages import describe_service_accounts as describing
from penstock.wire.messages import describe_virtual_clusters as describing_clusters

CODE, MESSAGE = CLUSTER_DENIED


def _described(request: describing.DescribeServiceAccountsRequest) -> describing.DescribeServiceAccountsResponse:
    return describing.DescribeServiceAccountsResponse(error_code=CODE, error_message=MESSAGE)


async def _altered(request: altering.AlterServiceAccountsRequest) -> altering.AlterServiceAccountsResponse:
    names = [*(creation.name for creation in request.creations), *request.deletions]
    results = await map_each(
        names, lambda name: altering.AlterServiceAccountsResult(name=name, error_code=CODE, error_message=MESSAGE)
    )
    return altering.AlterServiceAccountsResponse(results=results)


def _created(request: creating.CreateApiKeyRequest) -> creating.CreateApiKeyResponse:
    return creating.CreateApiKeyResponse(error_code=CODE, error_message=MESSAGE)


async def _deleted(request: deleting.DeleteApiKeysRequest) -> deleting.DeleteApiKeysResponse:
    results = await map_each(
        request.key_ids,
        lambda key_id: deleting.DeleteApiKeysResult(key_id=key_id, error_code=CODE, error_message=MESSAGE),
    )
    return deleting.DeleteApiKeysResponse(results=results)


def _clusters_described(
    request: describing_clusters.DescribeVirtualClustersRequest,
) -> describing_clusters.DescribeVirtualClustersResponse:
    return describing_clusters.DescribeVirtualClustersResponse(error_code=CODE, error_message=MESSAGE)


describe_service_accounts = needs(Operation.DESCRIBE, _described)
alter_service_accounts = needs_for_each(Operation.ALTER, _altered)
create_api_key = needs(Operation.ALTER, _created)
delete_api_keys = needs_for_each(Operation.ALTER, _deleted)
describe_virtual_clusters = needs(Operation.DESCRIBE, _clusters_described)

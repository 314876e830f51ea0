"""APIs for virtual clusters and environments. They are Penstock's own: Kafka has none for this. ApiVersions lists them
for our own command line only.

Platform administrators may use all of them. Others can describe their own cluster only, and get the same answer for
every other name, whether such a cluster exists or not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping

from penstock.base.context import RequestContext
from penstock.base.cooperative import yield_if_due
from penstock.base.errors import InvalidRequest, PlatformError
from penstock.clusters.failures import AlreadyExists, Forbidden, NotFound
from penstock.clusters.model import Cluster
from penstock.clusters.service import Clusters
from penstock.wire.error_codes import ErrorCode
from penstock.wire.failures import NO_ERROR, ApiError, change_failure
from penstock.wire.messages.alter_environments import (
    AlterEnvironmentsRequest,
    AlterEnvironmentsResponse,
    AlterEnvironmentsResult,
)
from penstock.wire.messages.alter_virtual_cluster import AlterVirtualClusterRequest, AlterVirtualClusterResponse
from penstock.wire.messages.create_virtual_cluster import CreateVirtualClusterRequest, CreateVirtualClusterResponse
from penstock.wire.messages.delete_virtual_cluster import DeleteVirtualClusterRequest, DeleteVirtualClusterResponse
from penstock.wire.messages.describe_environments import (
    DescribedEnvironment,
    DescribeEnvironmentsRequest,
    DescribeEnvironmentsResponse,
)
from penstock.wire.messages.describe_virtual_clusters import (
    DescribedLimit,
    DescribedUsage,
    DescribedVirtualCluster,
    DescribeVirtualClustersRequest,
    DescribeVirtualClustersResponse,
)
from penstock.wire.messages.enter_cluster import EnterClusterRequest, EnterClusterResponse

Usage = Callable[[int], Awaitable[Mapping[str, float]]]
"""The current usage of a cluster, by limit."""
NOT_ALLOWED: ApiError = (
    ErrorCode.CLUSTER_AUTHORIZATION_FAILED, "Only platform administrators (super.users) may do this."
)  # fmt: skip


class VirtualClusterHandlers:
    """Our APIs over `Clusters`."""

    def __init__(self, clusters: Clusters, *, is_admin: Callable[[RequestContext], bool], usage: Usage) -> None:
        self._clusters, self._is_admin, self._usage = clusters, is_admin, usage

    async def enter(self, context: RequestContext, request: EnterClusterRequest) -> EnterClusterResponse:
        """EnterCluster, key 10004, v0: later requests of the connection are for another cluster."""
        if not self._is_admin(context):
            code, message = NOT_ALLOWED
            return EnterClusterResponse(error_code=code, error_message=message)
        try:
            cluster = self._clusters.found(request.name)
        except InvalidRequest as error:
            code, message = _api_error(error)
            return EnterClusterResponse(error_code=code, error_message=message)
        return EnterClusterResponse(
            error_message=None, cluster_id=cluster.cluster_id, kafka_cluster_id=cluster.kafka_id
        )  # fmt: skip

    async def describe(
        self, context: RequestContext, request: DescribeVirtualClustersRequest
    ) -> DescribeVirtualClustersResponse:
        """DescribeVirtualClusters, key 10005, v0: the named clusters; names null: all that the caller may see; empty:
        the caller's own."""
        visible: Iterable[Cluster] = self._clusters.all()
        if not self._is_admin(context) or request.names == []:
            visible = [cluster for cluster in visible if cluster.cluster_id == context.cluster_id]
        if request.names:
            names = set(request.names)
            visible = [cluster for cluster in visible if cluster.name in names]
        return DescribeVirtualClustersResponse(
            error_message=None, clusters=[await self._described(cluster) for cluster in visible]
        )

    async def _described(self, cluster: Cluster) -> DescribedVirtualCluster:
        usage = await self._usage(cluster.cluster_id)
        return DescribedVirtualCluster(
            name=cluster.name,
            environment=cluster.environment,
            kafka_cluster_id=cluster.kafka_id,
            description=cluster.description,
            state=cluster.state,
            created_ms=cluster.created_ms,
            limits=[DescribedLimit(key=key, value=value) for key, value in sorted(cluster.limits.items())],
            usage=[DescribedUsage(key=key, value=value) for key, value in sorted(usage.items())],
        )

    async def create(
        self, context: RequestContext, request: CreateVirtualClusterRequest
    ) -> CreateVirtualClusterResponse:
        """CreateVirtualCluster, key 10006, v0."""
        if not self._is_admin(context):
            code, message = NOT_ALLOWED
            return CreateVirtualClusterResponse(error_code=code, error_message=message)
        limits = {limit.key: limit.value for limit in request.limits}
        try:
            cluster = await self._clusters.create(request.name, request.environment, request.description, limits)
        except PlatformError as error:
            code, message = _api_error(error)
            return CreateVirtualClusterResponse(error_code=code, error_message=message)
        return CreateVirtualClusterResponse(error_message=None, kafka_cluster_id=cluster.kafka_id)

    async def alter(self, context: RequestContext, request: AlterVirtualClusterRequest) -> AlterVirtualClusterResponse:
        """AlterVirtualCluster, key 10007, v0: description and limits."""
        if not self._is_admin(context):
            code, message = NOT_ALLOWED
            return AlterVirtualClusterResponse(error_code=code, error_message=message)
        limits = {limit.key: None if limit.remove else limit.value for limit in request.limits}
        try:
            await self._clusters.alter(request.name, request.description, limits)
        except PlatformError as error:
            code, message = _api_error(error)
            return AlterVirtualClusterResponse(error_code=code, error_message=message)
        return AlterVirtualClusterResponse(error_message=None)

    async def delete(
        self, context: RequestContext, request: DeleteVirtualClusterRequest
    ) -> DeleteVirtualClusterResponse:
        """DeleteVirtualCluster, key 10008, v0: the cluster is inaccessible at once. Its contents are deleted in the
        background; after that its name can be used again."""
        if not self._is_admin(context):
            code, message = NOT_ALLOWED
            return DeleteVirtualClusterResponse(error_code=code, error_message=message)
        try:
            await self._clusters.begin_deletion(request.name)
        except PlatformError as error:
            code, message = _api_error(error)
            return DeleteVirtualClusterResponse(error_code=code, error_message=message)
        return DeleteVirtualClusterResponse(error_message=None)

    async def describe_environments(
        self, context: RequestContext, request: DescribeEnvironmentsRequest
    ) -> DescribeEnvironmentsResponse:
        """DescribeEnvironments, key 10009, v0: all of them, with the names of their clusters."""
        if not self._is_admin(context):
            code, message = NOT_ALLOWED
            return DescribeEnvironmentsResponse(error_code=code, error_message=message)
        clusters: dict[str, list[str]] = {}
        for cluster in self._clusters.all():
            clusters.setdefault(cluster.environment, []).append(cluster.name)
        return DescribeEnvironmentsResponse(
            error_message=None,
            environments=[
                DescribedEnvironment(
                    name=environment.name,
                    created_ms=environment.created_ms,
                    clusters=clusters.get(environment.name, []),
                )
                for environment in self._clusters.environments()
            ],
        )

    async def alter_environments(
        self, context: RequestContext, request: AlterEnvironmentsRequest
    ) -> AlterEnvironmentsResponse:
        """AlterEnvironments, key 10010, v0: creates and deletes environments one by one."""
        response = AlterEnvironmentsResponse()
        for number, name in enumerate(request.creations):
            await yield_if_due(number)
            response.results.append(await self._environment(context, name, is_new=True))
        for number, name in enumerate(request.deletions):
            await yield_if_due(number)
            response.results.append(await self._environment(context, name, is_new=False))
        return response

    async def _environment(self, context: RequestContext, name: str, *, is_new: bool) -> AlterEnvironmentsResult:
        api_error = NO_ERROR
        if not self._is_admin(context):
            api_error = NOT_ALLOWED
        else:
            try:
                await (self._clusters.create_environment(name) if is_new else self._clusters.delete_environment(name))
            except PlatformError as error:
                api_error = _api_error(error)
        return AlterEnvironmentsResult(name=name, error_code=api_error[0], error_message=api_error[1])


def _api_error(error: PlatformError) -> ApiError:
    match error:
        case NotFound():
            return ErrorCode.RESOURCE_NOT_FOUND, str(error)
        case AlreadyExists():
            return ErrorCode.DUPLICATE_RESOURCE, str(error)
        case Forbidden():
            return ErrorCode.POLICY_VIOLATION, str(error)
        case _:
            return change_failure(error)

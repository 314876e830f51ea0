"""Guards of cluster-wide APIs: one operation on the cluster allows or denies (31) the whole request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import chain
from typing import Any

from penstock.authorization.guards.access import CLUSTER_DENIED, Guard, Handler, RequestAccess
from penstock.base.acls import Operation
from penstock.base.cooperative import distinct, map_each, map_nested, sort_items, yield_if_due
from penstock.wire.messages import (
    add_raft_voter,
    list_config_resources,
    remove_raft_voter,
    unregister_broker,
    unregister_controller,
    update_features,
)
from penstock.wire.messages import alter_client_quotas as altering_quotas
from penstock.wire.messages import alter_partition_reassignments as reassigning
from penstock.wire.messages import alter_replica_log_dirs as moving
from penstock.wire.messages import alter_user_scram_credentials as altering_scram
from penstock.wire.messages import create_acls as creating_acls
from penstock.wire.messages import delete_acls as deleting_acls
from penstock.wire.messages import delete_share_group_state as deleting_state
from penstock.wire.messages import describe_acls as describing_acls
from penstock.wire.messages import describe_client_quotas as describing_quotas
from penstock.wire.messages import describe_cluster as describing
from penstock.wire.messages import describe_log_dirs as log_dirs
from penstock.wire.messages import describe_quorum as quorum
from penstock.wire.messages import describe_user_scram_credentials as describing_scram
from penstock.wire.messages import elect_leaders as electing
from penstock.wire.messages import initialize_share_group_state as initializing_state
from penstock.wire.messages import list_partition_reassignments as listing
from penstock.wire.messages import read_share_group_state as reading_state
from penstock.wire.messages import read_share_group_state_summary as summarizing_state
from penstock.wire.messages import write_share_group_state as writing_state

CODE, MESSAGE = CLUSTER_DENIED


def needs(operation: Operation, refused: Callable[[Any], Any]) -> Guard:
    """A guard that passes the whole request, or answers with `refused`."""

    async def guard(access: RequestAccess, request: Any, handle: Handler) -> Any:
        return await handle(request) if access.may_on_cluster(operation) else refused(request)

    return guard


def needs_for_each(operation: Operation, refused: Callable[[Any], Awaitable[Any]]) -> Guard:
    """The same for a response that has a result for each requested item, which is built cooperatively."""

    async def guard(access: RequestAccess, request: Any, handle: Handler) -> Any:
        return await (handle(request) if access.may_on_cluster(operation) else refused(request))

    return guard


async def describe_cluster(
    access: RequestAccess, request: describing.DescribeClusterRequest, handle: Handler
) -> describing.DescribeClusterResponse:
    """Allowed for everyone. The authorized operations on the cluster need DESCRIBE on it."""
    response: describing.DescribeClusterResponse = await handle(request)
    if request.include_cluster_authorized_operations and not response.error_code:
        response.cluster_authorized_operations = access.cluster_operations()
    return response


def _log_dirs(request: log_dirs.DescribeLogDirsRequest) -> log_dirs.DescribeLogDirsResponse:
    return log_dirs.DescribeLogDirsResponse(error_code=CODE)


async def _moves(request: moving.AlterReplicaLogDirsRequest) -> moving.AlterReplicaLogDirsResponse:
    response = moving.AlterReplicaLogDirsResponse()
    for number, directory in enumerate(request.dirs):
        await yield_if_due(number)
        response.results += await map_nested(
            directory.topics,
            lambda topic: topic.partitions,
            lambda index: moving.AlterReplicaLogDirPartitionResult(partition_index=index, error_code=CODE),
            lambda topic, results: moving.AlterReplicaLogDirTopicResult(topic_name=topic.name, partitions=results),
        )
    return response


async def _elections(request: electing.ElectLeadersRequest) -> electing.ElectLeadersResponse:
    results = await map_nested(
        request.topic_partitions or (),
        lambda topic: topic.partitions,
        lambda index: electing.PartitionResult(partition_id=index, error_code=CODE, error_message=MESSAGE),
        lambda topic, partitions: electing.ReplicaElectionResult(topic=topic.topic, partition_result=partitions),
    )
    return electing.ElectLeadersResponse(error_code=CODE, replica_election_results=results)


async def _reassignments(
    request: reassigning.AlterPartitionReassignmentsRequest,
) -> reassigning.AlterPartitionReassignmentsResponse:
    responses = await map_nested(
        request.topics,
        lambda topic: topic.partitions,
        lambda one: reassigning.ReassignablePartitionResponse(
            partition_index=one.partition_index, error_code=CODE, error_message=MESSAGE
        ),
        lambda topic, partitions: reassigning.ReassignableTopicResponse(name=topic.name, partitions=partitions),
    )
    return reassigning.AlterPartitionReassignmentsResponse(error_code=CODE, error_message=MESSAGE, responses=responses)


async def _listed_reassignments(
    request: listing.ListPartitionReassignmentsRequest,
) -> listing.ListPartitionReassignmentsResponse:
    topics = await map_nested(
        request.topics or (),
        lambda topic: topic.partition_indexes,
        lambda index: listing.OngoingPartitionReassignment(partition_index=index),
        lambda topic, partitions: listing.OngoingTopicReassignment(name=topic.name, partitions=partitions),
    )
    return listing.ListPartitionReassignmentsResponse(error_code=CODE, error_message=MESSAGE, topics=topics)


def _acls_created(request: creating_acls.CreateAclsRequest) -> creating_acls.CreateAclsResponse:
    refused = creating_acls.AclCreationResult(error_code=CODE, error_message=MESSAGE)
    return creating_acls.CreateAclsResponse(results=[refused] * len(request.creations))


def _acls_deleted(request: deleting_acls.DeleteAclsRequest) -> deleting_acls.DeleteAclsResponse:
    refused = deleting_acls.DeleteAclsFilterResult(error_code=CODE, error_message=MESSAGE)
    return deleting_acls.DeleteAclsResponse(filter_results=[refused] * len(request.filters))


def _acls_described(request: describing_acls.DescribeAclsRequest) -> describing_acls.DescribeAclsResponse:
    return describing_acls.DescribeAclsResponse(error_code=CODE, error_message=MESSAGE)


def _quotas_described(
    request: describing_quotas.DescribeClientQuotasRequest,
) -> describing_quotas.DescribeClientQuotasResponse:
    return describing_quotas.DescribeClientQuotasResponse(error_code=CODE, error_message=MESSAGE, entries=None)


async def _quotas_altered(
    request: altering_quotas.AlterClientQuotasRequest,
) -> altering_quotas.AlterClientQuotasResponse:
    entries = await map_nested(
        request.entries,
        lambda entry: entry.entity,
        lambda entity: altering_quotas.AlterClientQuotasResponseEntityData(
            entity_type=entity.entity_type, entity_name=entity.entity_name
        ),
        lambda entry, entity: altering_quotas.AlterClientQuotasResponseEntryData(
            error_code=CODE, error_message=MESSAGE, entity=entity
        ),
    )
    return altering_quotas.AlterClientQuotasResponse(entries=entries)


async def _scram_described(
    request: describing_scram.DescribeUserScramCredentialsRequest,
) -> describing_scram.DescribeUserScramCredentialsResponse:
    # As in Kafka: one result for each user, without its name.
    results = await map_each(
        request.users or (),
        lambda user: describing_scram.DescribeUserScramCredentialsResult(error_code=CODE, error_message=MESSAGE),
    )
    return describing_scram.DescribeUserScramCredentialsResponse(
        error_code=CODE, error_message=MESSAGE, results=results
    )


async def _scram_altered(
    request: altering_scram.AlterUserScramCredentialsRequest,
) -> altering_scram.AlterUserScramCredentialsResponse:
    deleted, upserted = (one.name for one in request.deletions), (one.name for one in request.upsertions)
    users = await distinct(chain(deleted, upserted))
    results = await map_each(
        await sort_items(list(users), str),
        lambda user: altering_scram.AlterUserScramCredentialsResult(user=user, error_code=CODE, error_message=MESSAGE),
    )
    return altering_scram.AlterUserScramCredentialsResponse(results=results)


def _top_level(response_type: Callable[..., Any]) -> Callable[[Any], Any]:
    """Build denials that are one top-level error code and message."""
    return lambda request: response_type(error_code=CODE, error_message=MESSAGE)


def _resources(request: list_config_resources.ListConfigResourcesRequest) -> Any:
    return list_config_resources.ListConfigResourcesResponse(error_code=CODE)


def _state(module: Any, kind: str) -> Callable[[Any], Any]:
    """Build denials of the share group state APIs (for brokers), whose responses all have the same structure."""

    def refused(request: Any) -> Any:
        return getattr(module, f"{kind}ShareGroupStateResponse")(
            results=[
                getattr(module, f"{kind}StateResult")(
                    topic_id=topic.topic_id,
                    partitions=[
                        module.PartitionResult(partition=partition.partition, error_code=CODE, error_message=MESSAGE)
                        for partition in topic.partitions
                    ],
                )
                for topic in request.topics
            ]
        )

    return refused


def _state_summary(request: summarizing_state.ReadShareGroupStateSummaryRequest) -> Any:
    return summarizing_state.ReadShareGroupStateSummaryResponse(
        results=[
            summarizing_state.ReadStateSummaryResult(
                topic_id=topic.topic_id,
                partitions=[
                    summarizing_state.PartitionResult(
                        partition=partition.partition, error_code=CODE, error_message=MESSAGE
                    )
                    for partition in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    )


_O = Operation
describe_log_dirs = needs(_O.DESCRIBE, _log_dirs)
alter_replica_log_dirs = needs_for_each(_O.ALTER, _moves)
elect_leaders = needs_for_each(_O.ALTER, _elections)
alter_partition_reassignments = needs_for_each(_O.ALTER, _reassignments)
list_partition_reassignments = needs_for_each(_O.DESCRIBE, _listed_reassignments)
create_acls = needs(_O.ALTER, _acls_created)
delete_acls = needs(_O.ALTER, _acls_deleted)
describe_acls = needs(_O.DESCRIBE, _acls_described)
describe_client_quotas = needs(_O.DESCRIBE_CONFIGS, _quotas_described)
alter_client_quotas = needs_for_each(_O.ALTER_CONFIGS, _quotas_altered)
describe_user_scram_credentials = needs_for_each(_O.DESCRIBE, _scram_described)
alter_user_scram_credentials = needs_for_each(_O.ALTER, _scram_altered)
describe_quorum = needs(_O.DESCRIBE, _top_level(quorum.DescribeQuorumResponse))
update_features_guard = needs(_O.ALTER, _top_level(update_features.UpdateFeaturesResponse))
add_voter = needs(_O.ALTER, _top_level(add_raft_voter.AddRaftVoterResponse))
remove_voter = needs(_O.ALTER, _top_level(remove_raft_voter.RemoveRaftVoterResponse))
unregister_broker_guard = needs(_O.ALTER, _top_level(unregister_broker.UnregisterBrokerResponse))
unregister_controller_guard = needs(_O.ALTER, _top_level(unregister_controller.UnregisterControllerResponse))
list_resources = needs(_O.DESCRIBE_CONFIGS, _resources)
initialize_state = needs(_O.CLUSTER_ACTION, _state(initializing_state, "Initialize"))
read_state = needs(_O.CLUSTER_ACTION, _state(reading_state, "Read"))
write_state = needs(_O.CLUSTER_ACTION, _state(writing_state, "Write"))
delete_state = needs(_O.CLUSTER_ACTION, _state(deleting_state, "Delete"))
read_state_summary = needs(_O.CLUSTER_ACTION, _state_summary)

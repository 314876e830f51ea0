"""Kafka's APIs about replicas, in a system with one logical replica: log directories, elections, reassignments, the
metadata quorum.

Every partition always has a leader, whichever live agent a client asks: an election is never needed, and a
reassignment is complete as soon as it is accepted. Requests that make no sense here are refused as Kafka refuses them.
"""

from __future__ import annotations

from penstock.base.context import RequestContext
from penstock.base.cooperative import TurnBudget, build_dict, map_each
from penstock.log.admin.topics import check_replicas
from penstock.log.brokers import Brokers, replica_nodes
from penstock.log.model import LEADER_EPOCH, Partition
from penstock.log.refusals import Refused
from penstock.log.registry import Registry
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsResponse,
    ReassignablePartition,
    ReassignablePartitionResponse,
    ReassignableTopicResponse,
)
from penstock.wire.messages.alter_replica_log_dirs import (
    AlterReplicaLogDirPartitionResult,
    AlterReplicaLogDirsRequest,
    AlterReplicaLogDirsResponse,
    AlterReplicaLogDirTopicResult,
)
from penstock.wire.messages.describe_log_dirs import (
    DescribeLogDirsPartition,
    DescribeLogDirsRequest,
    DescribeLogDirsResponse,
    DescribeLogDirsResult,
    DescribeLogDirsTopic,
)
from penstock.wire.messages.describe_quorum import (
    DescribeQuorumRequest,
    DescribeQuorumResponse,
    DescribeQuorumResponsePartitionData,
    DescribeQuorumResponseTopicData,
    Listener,
    Node,
    ReplicaState,
)
from penstock.wire.messages.elect_leaders import (
    ElectLeadersRequest,
    ElectLeadersResponse,
    PartitionResult,
    ReplicaElectionResult,
)
from penstock.wire.messages.list_partition_reassignments import (
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse,
)

ELECTION_TYPES = (0, 1)
"""Kafka's numbers for preferred and unclean elections."""
METADATA_PARTITION = ("__cluster_metadata", 0)
"""The topic and partition of Kafka's metadata log."""
NODES_SINCE = 2
NOT_HOSTED = "This server does not host this topic-partition."


class ReplicaHandlers:
    """Kafka's APIs about where replicas are."""

    def __init__(self, registry: Registry, brokers: Brokers, *, log_dir: str = "/penstock") -> None:
        self._registry = registry
        self._brokers = brokers
        self._log_dir = log_dir

    async def describe_log_dirs(
        self, context: RequestContext, request: DescribeLogDirsRequest
    ) -> DescribeLogDirsResponse:
        """DescribeLogDirs, key 35, v1-5. v2: flexible. v3: a top-level error. v4: sizes of the volume, unknown here.
        v5: cordoned directories. One directory stands for the store; sizes are those of the log."""
        topics, budget, asked = [], TurnBudget(), None
        if request.topics is not None:
            asked = await build_dict(request.topics, lambda topic: (topic.topic, set(topic.partitions)))
        for topic in self._registry.all(context.cluster_id):
            await budget.spend()
            if asked is not None and topic.name not in asked:
                continue
            partitions = await budget.map_each(
                [one for one in topic.partitions if asked is None or one.index in asked[topic.name]],
                lambda one: DescribeLogDirsPartition(partition_index=one.index, partition_size=one.size_bytes),
            )
            if partitions:
                topics.append(DescribeLogDirsTopic(name=topic.name, partitions=partitions))
        return DescribeLogDirsResponse(results=[DescribeLogDirsResult(log_dir=self._log_dir, topics=topics)])

    async def alter_replica_log_dirs(
        self, context: RequestContext, request: AlterReplicaLogDirsRequest
    ) -> AlterReplicaLogDirsResponse:
        """AlterReplicaLogDirs, key 34, v1-2. v2: flexible. There is one directory, and everything is in it; any other
        is refused with LOG_DIR_NOT_FOUND (57), an unknown partition with REPLICA_NOT_AVAILABLE (9)."""
        results, budget = dict[str, AlterReplicaLogDirTopicResult](), TurnBudget()
        for directory in request.dirs:
            await budget.spend()
            for topic in directory.topics:
                await budget.spend()
                result = results.setdefault(topic.name, AlterReplicaLogDirTopicResult(topic_name=topic.name))
                for index in topic.partitions:
                    await budget.spend()
                    code = ErrorCode.NONE
                    if directory.path != self._log_dir:
                        code = ErrorCode.LOG_DIR_NOT_FOUND
                    elif self._partition(context, topic.name, index) is None:
                        code = ErrorCode.REPLICA_NOT_AVAILABLE
                    result.partitions.append(AlterReplicaLogDirPartitionResult(partition_index=index, error_code=code))
        return AlterReplicaLogDirsResponse(results=list(results.values()))

    async def describe_quorum(self, context: RequestContext, request: DescribeQuorumRequest) -> DescribeQuorumResponse:
        """DescribeQuorum, key 55, v0-2. v1: when replicas last fetched. v2: error messages, addresses of voters. There
        is no metadata log and no quorum. The answer describes a cluster whose only voter is the agent that takes
        administrative requests: it leads and is up to date, and other agents are observers."""
        response, budget = DescribeQuorumResponse(), TurnBudget()
        leader = self._brokers.controller_id(context)
        alive = self._brokers.alive(context)
        for topic in request.topics:
            await budget.spend()
            partitions = []
            for wanted in topic.partitions:
                await budget.spend()
                found = DescribeQuorumResponsePartitionData(partition_index=wanted.partition_index)
                if (topic.topic_name, wanted.partition_index) == METADATA_PARTITION:
                    found.leader_id, found.leader_epoch = leader, LEADER_EPOCH
                    found.current_voters = [ReplicaState(replica_id=leader)]
                    found.observers = [
                        ReplicaState(replica_id=broker.node_id) for broker in alive if broker.node_id != leader
                    ]
                else:
                    found.error_code, found.error_message = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, NOT_HOSTED
                partitions.append(found)
            response.topics.append(DescribeQuorumResponseTopicData(topic_name=topic.topic_name, partitions=partitions))
        if context.api_version >= NODES_SINCE:
            response.nodes = [
                Node(
                    node_id=broker.node_id,
                    listeners=[Listener(name=context.listener_name, host=broker.host, port=broker.port)],
                )
                for broker in alive
                if broker.node_id == leader
            ]
        return response

    async def elect_leaders(self, context: RequestContext, request: ElectLeadersRequest) -> ElectLeadersResponse:
        """ElectLeaders, key 43, v0-2. v1: unclean elections, a top-level error. v2: flexible."""
        known_type, budget = request.election_type in ELECTION_TYPES, TurnBudget()
        response = ElectLeadersResponse(
            error_code=ErrorCode.NONE if known_type else ErrorCode.INVALID_REQUEST, replica_election_results=[]
        )
        if request.topic_partitions is None and known_type:
            # Null means every partition that needs an election: there are none, but Kafka lists the topics all the
            # same.
            response.replica_election_results = await map_each(
                list(self._registry.all(context.cluster_id)),
                lambda topic: ReplicaElectionResult(topic=topic.name, partition_result=[]),
            )
        for topic in request.topic_partitions or ():
            await budget.spend()
            results = []
            for index in topic.partitions:
                await budget.spend()
                if not known_type:
                    code, message = ErrorCode.INVALID_REQUEST, f"Unknown election type {request.election_type}"
                elif self._partition(context, topic.topic, index) is None:
                    code, message = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, NOT_HOSTED
                else:
                    code, message = ErrorCode.ELECTION_NOT_NEEDED, "Every partition has a live leader."
                results.append(PartitionResult(partition_id=index, error_code=code, error_message=message))
            response.replica_election_results.append(ReplicaElectionResult(topic=topic.topic, partition_result=results))
        return response

    async def alter_partition_reassignments(
        self, context: RequestContext, request: AlterPartitionReassignmentsRequest
    ) -> AlterPartitionReassignmentsResponse:
        """AlterPartitionReassignments, key 45, v0-1. v1: the client may forbid a change of the replication factor. Any
        live agents are accepted, and the reassignment completes at once; so there is never one to cancel."""
        response = AlterPartitionReassignmentsResponse(
            error_message=None, allow_replication_factor_change=request.allow_replication_factor_change
        )
        budget = TurnBudget()
        for topic in request.topics:
            await budget.spend()
            results = []
            for wanted in topic.partitions:
                await budget.spend()
                result = ReassignablePartitionResponse(partition_index=wanted.partition_index, error_message=None)
                try:
                    partition = self._partition(context, topic.name, wanted.partition_index)
                    if partition is None:
                        raise Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, NOT_HOSTED)
                    self._check_reassignment(context, partition, wanted, request.allow_replication_factor_change)
                except Refused as refusal:
                    result.error_code, result.error_message = refusal.code, refusal.message
                results.append(result)
            response.responses.append(ReassignableTopicResponse(name=topic.name, partitions=results))
        return response

    def _check_reassignment(
        self, context: RequestContext, partition: Partition, wanted: ReassignablePartition, may_change_factor: bool
    ) -> None:
        if wanted.replicas is None:
            raise Refused(ErrorCode.NO_REASSIGNMENT_IN_PROGRESS, "No reassignment is in progress.")
        alive = self._brokers.alive(context)
        check_replicas({broker.node_id for broker in alive}, wanted.replicas)
        if not may_change_factor:
            leader = self._brokers.leader(partition, context)
            present = len(replica_nodes(leader, partition.topic.replication_factor, alive))
            if len(wanted.replicas) != present:
                raise Refused(
                    ErrorCode.INVALID_REPLICATION_FACTOR,
                    f"The replication factor would change from {present} to {len(wanted.replicas)}.",
                )

    async def list_partition_reassignments(
        self, context: RequestContext, request: ListPartitionReassignmentsRequest
    ) -> ListPartitionReassignmentsResponse:
        """ListPartitionReassignments, key 46, v0: always empty, because reassignments complete when they are
        accepted."""
        return ListPartitionReassignmentsResponse(error_message=None)

    def _partition(self, context: RequestContext, name: str, index: int) -> Partition | None:
        topic = self._registry.by_name(context.cluster_id, name)
        return topic.partitions[index] if topic is not None and 0 <= index < len(topic.partitions) else None

"""Kafka's group APIs except for offsets, translated to the group service and back. No rules here.

`authorized_operations` lists all operations; the guard narrows it where ACLs apply.
"""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import NamedTuple, Protocol

from penstock.base.context import RequestContext
from penstock.base.cooperative import CHEAP_ITEMS_PER_TURN, build_dict, distinct, map_each, yield_if_due
from penstock.base.errors import PlatformError
from penstock.coordination.model import CoordinatorLoading
from penstock.groups.describing import describe_within_budget, grant_all
from penstock.groups.failures import ASK_AGAIN, code_of
from penstock.groups.model import ClassicGroup, ClassicHeartbeat, GroupState, Join, LeavingMember, Sync
from penstock.groups.service import GroupService
from penstock.log.refusals import Refused
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.delete_groups import DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse
from penstock.wire.messages.describe_groups import (
    DescribedGroup,
    DescribedGroupMember,
    DescribeGroupsRequest,
    DescribeGroupsResponse,
)
from penstock.wire.messages.find_coordinator import Coordinator, FindCoordinatorRequest, FindCoordinatorResponse
from penstock.wire.messages.heartbeat import HeartbeatRequest, HeartbeatResponse
from penstock.wire.messages.join_group import JoinGroupRequest, JoinGroupResponse, JoinGroupResponseMember
from penstock.wire.messages.leave_group import LeaveGroupRequest, LeaveGroupResponse, MemberResponse
from penstock.wire.messages.list_groups import ListedGroup, ListGroupsRequest, ListGroupsResponse
from penstock.wire.messages.sync_group import SyncGroupRequest, SyncGroupResponse

_NOT_ASKED = -(1 << 31)
"""The value of `authorized_operations` in a response to a request that did not ask for it."""

_KEY_TYPES = (0, 1, 2)
"""Key types of coordinators: of groups, of transactions, of share partitions."""
_SHARE_PARTITION, _SHARE_SINCE = 2, 6
_SHARE_PARTITION_NAME = re.compile(r".+:[A-Za-z0-9_-]{22}:[0-9]{1,10}", re.DOTALL)
MAX_PROTOCOLS = 1_000
"""The most protocols of a member. Clients send one for each of their assignors."""
LEAVING_AT_ONCE = 1_000
"""How many members leave in one decision; a request may name more than a group has."""
PROTOCOL_NAMED_SINCE = 5
"""The version of SyncGroup from which clients must send protocol type and name."""


class CoordinatorEndpoint(NamedTuple):
    """The address of a coordinator."""

    node_id: int
    host: str
    port: int


class Coordinators(Protocol):
    """Finds coordinators. In an embedded deployment one process coordinates everything."""

    def coordinator(self, context: RequestContext, key_type: int, key: str) -> CoordinatorEndpoint:
        """The agent that coordinates a group or a transactional id, with the address that this caller can reach it
        at."""


class GroupHandlers:
    """The group APIs. Every method takes the context and a request, and returns the response."""

    def __init__(self, groups: GroupService, coordinators: Coordinators) -> None:
        self._groups, self._coordinators = groups, coordinators

    # --- Finding the coordinator ---

    async def find_coordinator(
        self, context: RequestContext, request: FindCoordinatorRequest
    ) -> FindCoordinatorResponse:
        """FindCoordinator, key 10, v0-6. v1: key type. v4: several keys (KIP-699). v6: share partitions, with keys
        GROUP:TOPIC_ID:PARTITION."""
        batched = context.api_version >= 4
        keys = request.coordinator_keys if batched else [request.key]
        found = []
        for number, key in enumerate(keys):
            await yield_if_due(number)
            found.append(self._find(context, request.key_type, key))
        if batched:
            return FindCoordinatorResponse(coordinators=found)
        one = found[0]
        return FindCoordinatorResponse(
            error_code=one.error_code,
            error_message=one.error_message or ErrorCode(one.error_code).name,  # As in Kafka, even for NONE.
            node_id=one.node_id,
            host=one.host,
            port=one.port,
        )

    def _find(self, context: RequestContext, key_type: int, key: str) -> Coordinator:
        if key_type not in _KEY_TYPES or (key_type == _SHARE_PARTITION and context.api_version < _SHARE_SINCE):
            return Coordinator(
                key=key,
                node_id=-1,
                port=-1,
                error_code=ErrorCode.INVALID_REQUEST,
                error_message=f"There is no coordinator of type {key_type}.",
            )
        if key_type == _SHARE_PARTITION and not _SHARE_PARTITION_NAME.fullmatch(key):
            return Coordinator(
                key=key,
                node_id=-1,
                port=-1,
                error_code=ErrorCode.INVALID_REQUEST,
                error_message="A share partition is named GROUP:TOPIC_ID:PARTITION.",
            )
        endpoint = self._coordinators.coordinator(context, key_type, key)
        return Coordinator(key=key, node_id=endpoint.node_id, host=endpoint.host, port=endpoint.port, error_message="")

    # --- Members ---

    async def join_group(self, context: RequestContext, request: JoinGroupRequest) -> JoinGroupResponse:
        """JoinGroup, key 11, v0-9.

        v1: rebalance time-out (v0: the session's). v4: a new member gets its id first (KIP-394). v5: static members
        (KIP-345). v7: protocol type in the response. v8: reason, informational. v9: skip_assignment (KIP-814).
        """
        version = context.api_version
        if not request.group_id:
            return self._join_failed(version, request.member_id, ErrorCode.INVALID_GROUP_ID)
        if len(request.protocols) > MAX_PROTOCOLS:
            return self._join_failed(version, request.member_id, ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
        timeout_ms = request.rebalance_timeout_ms if version >= 1 else request.session_timeout_ms
        prefix = (context.client_id or "") if request.group_instance_id is None else request.group_instance_id
        asked = Join(
            member_id=request.member_id,
            new_member_id=self._groups.new_member_id(prefix),
            instance_id=request.group_instance_id,
            client_id=context.client_id or "",
            client_host=f"/{context.client_host}",
            session_timeout_ms=request.session_timeout_ms,
            rebalance_timeout_ms=timeout_ms,
            protocol_type=request.protocol_type,
            protocols=tuple((protocol.name, bytes(protocol.metadata)) for protocol in request.protocols),
            member_id_required=version >= 4,
            may_skip_assignment=version >= 9,
        )
        try:
            result = await self._groups.join((context.cluster_id, request.group_id), asked)
        except PlatformError as error:
            return self._join_failed(version, request.member_id, code_of(error))
        if result.error is not ErrorCode.NONE:
            return self._join_failed(version, result.member_id, result.error)
        return JoinGroupResponse(
            generation_id=result.generation,
            protocol_type=result.protocol_type,
            protocol_name=result.protocol_name,
            leader=result.leader,
            skip_assignment=result.skip_assignment,
            member_id=result.member_id,
            members=[
                JoinGroupResponseMember(
                    member_id=member.member_id, group_instance_id=member.instance_id, metadata=member.metadata
                )
                for member in result.members
            ],
        )

    def _join_failed(self, version: int, member_id: str, error: ErrorCode) -> JoinGroupResponse:
        # The protocol name is nullable from v7 on.
        protocol_name = None if version >= 7 else ""
        return JoinGroupResponse(error_code=error, member_id=member_id, protocol_name=protocol_name)

    async def sync_group(self, context: RequestContext, request: SyncGroupRequest) -> SyncGroupResponse:
        """SyncGroup, key 14, v0-5. v3: static members. v5: protocol type and name, which must be the group's."""
        if context.api_version >= PROTOCOL_NAMED_SINCE and None in (request.protocol_type, request.protocol_name):
            return SyncGroupResponse(error_code=ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
        if not request.group_id:
            return SyncGroupResponse(error_code=ErrorCode.INVALID_GROUP_ID)
        asked = Sync(
            member_id=request.member_id,
            instance_id=request.group_instance_id,
            generation=request.generation_id,
            protocol_type=request.protocol_type,
            protocol_name=request.protocol_name,
            assignments=await build_dict(request.assignments, lambda given: (given.member_id, bytes(given.assignment))),
        )
        try:
            result = await self._groups.sync((context.cluster_id, request.group_id), asked)
        except PlatformError as error:
            return SyncGroupResponse(error_code=code_of(error))
        return SyncGroupResponse(
            error_code=result.error,
            protocol_type=result.protocol_type,
            protocol_name=result.protocol_name,
            assignment=result.assignment,
        )

    async def heartbeat(self, context: RequestContext, request: HeartbeatRequest) -> HeartbeatResponse:
        """Heartbeat, key 12, v0-4. v3: static members (KIP-345)."""
        if not request.group_id:
            return HeartbeatResponse(error_code=ErrorCode.INVALID_GROUP_ID)
        asked = ClassicHeartbeat(
            member_id=request.member_id, instance_id=request.group_instance_id, generation=request.generation_id
        )
        try:
            error = await self._groups.heartbeat((context.cluster_id, request.group_id), asked)
        except CoordinatorLoading:
            error = ErrorCode.NONE  # Membership is not known yet, and UNKNOWN_MEMBER_ID would cause a rebalance.
        except PlatformError as failure:
            error = code_of(failure)
        return HeartbeatResponse(error_code=error)

    async def leave_group(self, context: RequestContext, request: LeaveGroupRequest) -> LeaveGroupResponse:
        """LeaveGroup, key 13, v0-5. v3: several members, static ones by instance id. v5: reason, informational."""
        if not request.group_id:
            return LeaveGroupResponse(error_code=ErrorCode.INVALID_GROUP_ID)
        single = context.api_version < 3
        leavers = (
            [LeavingMember(member_id=request.member_id)]
            if single
            else await map_each(
                request.members,
                lambda member: LeavingMember(member_id=member.member_id, instance_id=member.group_instance_id),
            )
        )
        errors: list[ErrorCode] = []
        try:
            for first in range(0, len(leavers), LEAVING_AT_ONCE) or (0,):
                if first:
                    await asyncio.sleep(0)
                some = leavers[first : first + LEAVING_AT_ONCE]
                errors += (await self._groups.leave((context.cluster_id, request.group_id), some)).errors
        except PlatformError as error:
            return LeaveGroupResponse(error_code=code_of(error))
        if single:
            return LeaveGroupResponse(error_code=errors[0])
        return LeaveGroupResponse(
            members=await map_each(
                list(zip(leavers, errors, strict=True)),
                lambda one: MemberResponse(
                    member_id=one[0].member_id, group_instance_id=one[0].instance_id, error_code=one[1]
                ),
            )
        )

    # --- Administration ---

    async def describe_groups(self, context: RequestContext, request: DescribeGroupsRequest) -> DescribeGroupsResponse:
        """DescribeGroups, key 15, v0-6. v3: authorized operations. v4: instance ids. v6: GROUP_ID_NOT_FOUND (69)."""
        groups = await describe_within_budget(
            request.groups, partial(self._describe, context),
            lambda group_id: DescribedGroup(group_id=group_id, error_code=ASK_AGAIN),
        )  # fmt: skip
        if request.include_authorized_operations:
            await grant_all(groups)
        return DescribeGroupsResponse(groups=groups)

    async def _describe(self, context: RequestContext, group_id: str) -> DescribedGroup:
        try:
            return await _described(
                group_id, await self._groups.described((context.cluster_id, group_id), ClassicGroup)
            )
        except Refused as refused:
            dead = DescribedGroup(group_id=group_id, group_state="Dead")
            if context.api_version >= 6:
                dead.error_code, dead.error_message = refused.code, refused.message
            return dead
        except PlatformError as error:
            return DescribedGroup(group_id=group_id, error_code=code_of(error))

    async def list_groups(self, context: RequestContext, request: ListGroupsRequest) -> ListGroupsResponse:
        """ListGroups, key 16, v0-5. v4: filter by state. v5: by type. Unknown filters match nothing."""
        states = await distinct(state.lower() for state in request.states_filter)
        types = await distinct(group_type.lower() for group_type in request.types_filter)
        try:
            groups = await self._groups.list_groups(context.cluster_id)
        except PlatformError as error:
            return ListGroupsResponse(error_code=code_of(error))
        response = ListGroupsResponse()
        for number, group in enumerate(groups):
            await yield_if_due(number, CHEAP_ITEMS_PER_TURN)
            if (not states or group.state.lower() in states) and (not types or group.kind in types):
                response.groups.append(
                    ListedGroup(
                        group_id=group.group_id, protocol_type=group.protocol_type, group_state=group.state,
                        group_type=group.kind,
                    )
                )  # fmt: skip
        return response

    async def delete_groups(self, context: RequestContext, request: DeleteGroupsRequest) -> DeleteGroupsResponse:
        """DeleteGroups, key 42, v0-3. v3: error messages. NON_EMPTY_GROUP (68), GROUP_ID_NOT_FOUND (69)."""
        results, group_ids = [], dict.fromkeys(request.groups_names)
        await self._groups.await_deletion((context.cluster_id, group_id) for group_id in group_ids)
        for number, group_id in enumerate(group_ids):
            await yield_if_due(number)
            try:
                error = await self._groups.delete((context.cluster_id, group_id))
            except PlatformError as failure:
                error = code_of(failure)
            results.append(DeletableGroupResult(group_id=group_id, error_code=error))
        return DeleteGroupsResponse(results=results)


async def _described(group_id: str, group: ClassicGroup) -> DescribedGroup:
    stable = group.state is GroupState.STABLE
    return DescribedGroup(
        group_id=group_id,
        group_state=group.state.value,
        protocol_type=group.protocol_type or "",
        protocol_data=(group.protocol_name or "") if stable else "",
        members=await map_each(
            list(group.members.values()),
            lambda member: DescribedGroupMember(
                member_id=member.member_id,
                group_instance_id=member.instance_id,
                client_id=member.client_id,
                client_host=member.client_host,
                member_metadata=member.metadata(group.protocol_name) if stable else b"",
                member_assignment=member.assignment,
            ),
        ),
        authorized_operations=_NOT_ASKED,
    )

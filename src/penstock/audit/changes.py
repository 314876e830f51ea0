"""Which requests are administrative changes, and what they change. Pure.

`CHANGES` has an entry for every such API; a test fails when a new one is missing. What a request asks for is read
before guards see it, because they remove what is not allowed; the outcome is read from the response and matched by a
key that both have.

Of what a client has sent, names and numbers are logged. Values of configurations, credentials and error messages are
not: some of them are secrets, and nothing can tell which.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from math import isfinite
from types import MappingProxyType
from typing import Any, NamedTuple

from penstock.audit.details import LISTED_MAX
from penstock.audit.model import (
    API_KEY,
    DELEGATION_TOKEN,
    ENVIRONMENT,
    GROUP,
    SERVICE_ACCOUNT,
    THE_CLUSTER,
    TOPIC,
    TRANSACTIONAL_ID,
    USER,
    VIRTUAL_CLUSTER,
    Json,
    Resource,
    cut,
)
from penstock.base.acls import Operation, PatternType, Permission, ResourceType, enum_or_unknown
from penstock.wire.api_keys import ApiKey

SEEN_MAX = LISTED_MAX + 1
"""One more than an event lists, to show that there were more."""
_ZERO_ID = bytes(16)
_K = ApiKey


class RequestedChange(NamedTuple):
    """One requested change."""

    key: Hashable
    resource: Resource
    details: Mapping[str, Json] = MappingProxyType({})


class ChangeResult(NamedTuple):
    """Its outcome; details that only the response has replace or complete those of the request."""

    key: Hashable
    error: int
    resource: Resource | None = None
    details: Mapping[str, Json] = MappingProxyType({})


class ChangeReader(NamedTuple):
    """How a request and its response are read."""

    requested: Callable[[Any], Iterable[RequestedChange]]
    results: Callable[[Any], Iterable[ChangeResult]]
    is_repeated: bool = False
    """Whether ordinary clients send it all the time: then it is logged once per connection."""


def _listed(items: Iterable[Json]) -> Sequence[Json]:
    return list(islice(items, SEEN_MAX))


def _number(value: float) -> Json:
    """A number that a client has sent; JSON has no infinity and no NaN."""
    return value if isfinite(value) else str(value)


def _worst(codes: Iterable[int]) -> int:
    return next((code for code in codes if code), 0)


def _only(response: Any) -> Iterator[ChangeResult]:
    """The outcome of an API that changes one thing or nothing."""
    yield ChangeResult(0, response.error_code)


# ---- topics ----------------------------------------------------------------------------------------------------


def _create_topics(request: Any) -> Iterator[RequestedChange]:
    if not request.validate_only:
        for topic in request.topics:
            yield RequestedChange(
                topic.name, Resource(TOPIC, cut(topic.name)), {"configs": _config_names(topic.configs)}
            )


def _created_topics(response: Any) -> Iterator[ChangeResult]:
    for topic in response.topics:
        counts = {} if topic.num_partitions < 0 else {"num_partitions": topic.num_partitions}
        yield ChangeResult(topic.name, topic.error_code, details=counts)


def _delete_topics(request: Any) -> Iterator[RequestedChange]:
    for name in request.topic_names:
        yield RequestedChange(name, Resource(TOPIC, cut(name)))
    for topic in request.topics:
        topic_id = bytes(topic.topic_id)
        key = topic_id if topic.name is None else topic.name
        yield RequestedChange(key, Resource(TOPIC, topic_id.hex() if topic.name is None else cut(topic.name)))


def _deleted_topics(response: Any) -> Iterator[ChangeResult]:
    for topic in response.responses:
        resource = None if topic.name is None else Resource(TOPIC, cut(topic.name))
        if topic.name is not None:
            yield ChangeResult(topic.name, topic.error_code, resource)
        if bytes(topic.topic_id) != _ZERO_ID:
            yield ChangeResult(bytes(topic.topic_id), topic.error_code, resource)


def _create_partitions(request: Any) -> Iterator[RequestedChange]:
    if not request.validate_only:
        for topic in request.topics:
            yield RequestedChange(topic.name, Resource(TOPIC, cut(topic.name)), {"num_partitions": topic.count})


def _created_partitions(response: Any) -> Iterator[ChangeResult]:
    for topic in response.results:
        yield ChangeResult(topic.name, topic.error_code)


def _delete_records(request: Any) -> Iterator[RequestedChange]:
    for topic in request.topics:
        before = {str(one.partition_index): one.offset for one in islice(topic.partitions, SEEN_MAX)}
        yield RequestedChange(topic.name, Resource(TOPIC, cut(topic.name)), {"before_offsets": before})


def _deleted_records(response: Any) -> Iterator[ChangeResult]:
    for topic in response.topics:
        yield ChangeResult(topic.name, _worst(one.error_code for one in topic.partitions))


# ---- configuration ---------------------------------------------------------------------------------------------

_CONFIGURED = {2: TOPIC, 32: GROUP}
"""Kafka's numbers of resource types with a resource name of their own; the others are logged as the cluster."""
_CONFIG_KINDS = {4: "broker", 8: "broker-logger", 16: "client-metrics"}


def _config_names(configs: Iterable[Any]) -> Sequence[Json]:
    return _listed(cut(config.name) for config in configs)


def _alter_configs(request: Any) -> Iterator[RequestedChange]:
    if request.validate_only:
        return
    for one in request.resources:
        kind = _CONFIGURED.get(one.resource_type)
        resource = THE_CLUSTER if kind is None else Resource(kind, cut(one.resource_name))
        details: dict[str, Json] = {"configs": _config_names(one.configs)}
        if kind is None:
            details[_CONFIG_KINDS.get(one.resource_type, "resource")] = cut(one.resource_name)
        yield RequestedChange((one.resource_type, one.resource_name), resource, details)


def _altered_configs(response: Any) -> Iterator[ChangeResult]:
    for one in response.responses:
        yield ChangeResult((one.resource_type, one.resource_name), one.error_code)


# ---- access ----------------------------------------------------------------------------------------------------

_ACL_RESOURCES = {
    ResourceType.TOPIC: TOPIC, ResourceType.GROUP: GROUP, ResourceType.TRANSACTIONAL_ID: TRANSACTIONAL_ID,
    ResourceType.USER: USER, ResourceType.DELEGATION_TOKEN: DELEGATION_TOKEN,
}  # fmt: skip


def _acl_resource(number: int, name: str | None) -> Resource:
    kind = _ACL_RESOURCES.get(enum_or_unknown(ResourceType, number))
    return THE_CLUSTER if kind is None or name is None else Resource(kind, cut(name))


def _rule(acl: Any, pattern_type: int) -> dict[str, Json]:
    return {
        "principal": cut(acl.principal),
        "host": cut(acl.host),
        "operation": enum_or_unknown(Operation, acl.operation).name,
        "permissionType": enum_or_unknown(Permission, acl.permission_type).name,
        "patternType": enum_or_unknown(PatternType, pattern_type).name,
    }


def _create_acls(request: Any) -> Iterator[RequestedChange]:
    for number, acl in enumerate(request.creations):
        yield RequestedChange(
            number, _acl_resource(acl.resource_type, acl.resource_name), _rule(acl, acl.resource_pattern_type)
        )  # fmt: skip


def _created_acls(response: Any) -> Iterator[ChangeResult]:
    for number, result in enumerate(response.results):
        yield ChangeResult(number, result.error_code)


def _delete_acls(request: Any) -> Iterator[RequestedChange]:
    for number, one in enumerate(request.filters):
        yield RequestedChange(number, _acl_resource(one.resource_type_filter, one.resource_name_filter))


def _deleted_acls(response: Any) -> Iterator[ChangeResult]:
    for number, result in enumerate(response.filter_results):
        removed: Sequence[Json] = _listed(
            {
                "resourceType": enum_or_unknown(ResourceType, acl.resource_type).name,
                "resourceName": cut(acl.resource_name),
                **_rule(acl, acl.pattern_type),
            }
            for acl in result.matching_acls
        )
        yield ChangeResult(number, result.error_code, details={"removed": len(result.matching_acls), "acls": removed})


_SCRAM = {1: "SCRAM-SHA-256", 2: "SCRAM-SHA-512"}


def _alter_users(request: Any) -> Iterator[RequestedChange]:
    for action, wanted in (("delete", request.deletions), ("upsert", request.upsertions)):
        for one in wanted:
            mechanism = _SCRAM.get(one.mechanism, str(one.mechanism))
            yield RequestedChange(one.name, Resource(USER, cut(one.name)), {"action": action, "mechanism": mechanism})


def _altered_users(response: Any) -> Iterator[ChangeResult]:
    for one in response.results:
        yield ChangeResult(one.user, one.error_code)


def _create_token(request: Any) -> Iterator[RequestedChange]:
    owner = request.owner_principal_name
    details: dict[str, Json] = {
        "renewers": _listed(cut(f"{one.principal_type}:{one.principal_name}") for one in request.renewers)
    }
    if owner:
        details["owner"] = cut(f"{request.owner_principal_type}:{owner}")
    yield RequestedChange(0, THE_CLUSTER, details)


def _created_token(response: Any) -> Iterator[ChangeResult]:
    made = not response.error_code
    yield ChangeResult(0, response.error_code, Resource(DELEGATION_TOKEN, response.token_id) if made else None)


def _of_token(request: Any) -> Iterator[RequestedChange]:
    # A token is identified by its secret only, which must not be logged.
    yield RequestedChange(0, THE_CLUSTER)


def _alter_accounts(request: Any) -> Iterator[RequestedChange]:
    for one in request.creations:
        yield RequestedChange(one.name, Resource(SERVICE_ACCOUNT, cut(one.name)), {"action": "create"})
    for name in request.deletions:
        yield RequestedChange(name, Resource(SERVICE_ACCOUNT, cut(name)), {"action": "delete"})


def _altered_accounts(response: Any) -> Iterator[ChangeResult]:
    for one in response.results:
        yield ChangeResult(one.name, one.error_code)


def _create_key(request: Any) -> Iterator[RequestedChange]:
    yield RequestedChange(0, THE_CLUSTER, {"owner": cut(request.owner)})


def _created_key(response: Any) -> Iterator[ChangeResult]:
    made = not response.error_code
    yield ChangeResult(0, response.error_code, Resource(API_KEY, response.key_id) if made else None)


def _delete_keys(request: Any) -> Iterator[RequestedChange]:
    for key_id in request.key_ids:
        yield RequestedChange(key_id, Resource(API_KEY, cut(key_id)))


def _deleted_keys(response: Any) -> Iterator[ChangeResult]:
    for one in response.results:
        yield ChangeResult(one.key_id, one.error_code)


# ---- groups ----------------------------------------------------------------------------------------------------


def _delete_groups(request: Any) -> Iterator[RequestedChange]:
    for name in request.groups_names:
        yield RequestedChange(name, Resource(GROUP, cut(name)))


def _deleted_groups(response: Any) -> Iterator[ChangeResult]:
    for one in response.results:
        yield ChangeResult(one.group_id, one.error_code)


def _of_group(request: Any, topics: Iterable[str]) -> Iterator[RequestedChange]:
    yield RequestedChange(0, Resource(GROUP, cut(request.group_id)), {"topics": _listed(cut(name) for name in topics)})


def _delete_offsets(request: Any) -> Iterator[RequestedChange]:
    return _of_group(request, (topic.name for topic in request.topics))


def _deleted_offsets(response: Any) -> Iterator[ChangeResult]:
    parts = (one.error_code for topic in response.topics for one in topic.partitions)
    yield ChangeResult(0, response.error_code or _worst(parts))


def _commit_offsets(request: Any) -> Iterator[RequestedChange]:
    """Members commit offsets as they consume; without a member id it is an administrator who resets the group."""
    if request.generation_id_or_member_epoch < 0 and not request.member_id:
        yield from _of_group(request, (topic.name or bytes(topic.topic_id).hex() for topic in request.topics))


def _committed_offsets(response: Any) -> Iterator[ChangeResult]:
    yield ChangeResult(0, _worst(one.error_code for topic in response.topics for one in topic.partitions))


def _alter_share_offsets(request: Any) -> Iterator[RequestedChange]:
    return _of_group(request, (topic.topic_name for topic in request.topics))


def _altered_share_offsets(response: Any) -> Iterator[ChangeResult]:
    parts = (one.error_code for topic in response.responses for one in topic.partitions)
    yield ChangeResult(0, response.error_code or _worst(parts))


def _deleted_share_offsets(response: Any) -> Iterator[ChangeResult]:
    yield ChangeResult(0, response.error_code or _worst(topic.error_code for topic in response.responses))


# ---- quotas and transactions -----------------------------------------------------------------------------------


def _entity(entry: Any) -> Hashable:
    return tuple(sorted((part.entity_type, part.entity_name or "") for part in entry.entity))


def _alter_quotas(request: Any) -> Iterator[RequestedChange]:
    if request.validate_only:
        return
    for entry in request.entries:
        entity: dict[str, Json] = {
            cut(part.entity_type): None if part.entity_name is None else cut(part.entity_name)
            for part in islice(entry.entity, SEEN_MAX)
        }
        limits: dict[str, Json] = {
            cut(op.key): None if op.remove else _number(op.value) for op in islice(entry.ops, SEEN_MAX)
        }
        yield RequestedChange(_entity(entry), THE_CLUSTER, {"entity": entity, "quotas": limits})


def _altered_quotas(response: Any) -> Iterator[ChangeResult]:
    for entry in response.entries:
        yield ChangeResult(_entity(entry), entry.error_code)


def _write_markers(request: Any) -> Iterator[RequestedChange]:
    for marker in request.markers:
        details: dict[str, Json] = {
            "producer_id": marker.producer_id,
            "result": "commit" if marker.transaction_result else "abort",
            "topics": _listed(cut(topic.name) for topic in marker.topics),
        }
        yield RequestedChange(marker.producer_id, THE_CLUSTER, details)


def _wrote_markers(response: Any) -> Iterator[ChangeResult]:
    for marker in response.markers:
        parts = (one.error_code for topic in marker.topics for one in topic.partitions)
        yield ChangeResult(marker.producer_id, _worst(parts))


# ---- virtual clusters ------------------------------------------------------------------------------------------


def _of_cluster(request: Any) -> Iterator[RequestedChange]:
    yield RequestedChange(0, Resource(VIRTUAL_CLUSTER, cut(request.name)))


def _create_cluster(request: Any) -> Iterator[RequestedChange]:
    limits: dict[str, Json] = {cut(limit.key): _number(limit.value) for limit in islice(request.limits, SEEN_MAX)}
    details: dict[str, Json] = {"environment": cut(request.environment), "limits": limits}
    yield RequestedChange(0, Resource(VIRTUAL_CLUSTER, cut(request.name)), details)


def _created_cluster(response: Any) -> Iterator[ChangeResult]:
    made = not response.error_code
    yield ChangeResult(0, response.error_code, details={"kafka_cluster_id": response.kafka_cluster_id} if made else {})


def _alter_cluster(request: Any) -> Iterator[RequestedChange]:
    limits: dict[str, Json] = {
        cut(limit.key): None if limit.remove else _number(limit.value) for limit in islice(request.limits, SEEN_MAX)
    }
    yield RequestedChange(0, Resource(VIRTUAL_CLUSTER, cut(request.name)), {"limits": limits})


def _alter_environments(request: Any) -> Iterator[RequestedChange]:
    for action, names in (("create", request.creations), ("delete", request.deletions)):
        for name in names:
            yield RequestedChange(name, Resource(ENVIRONMENT, cut(name)), {"action": action})


_KEY_ACTIONS = {0: "encrypt", 1: "rotate", 2: "rewrap", 3: "erase"}


def _alter_keys(request: Any) -> Iterator[RequestedChange]:
    action = _KEY_ACTIONS.get(request.action, str(request.action))
    yield RequestedChange(0, Resource(VIRTUAL_CLUSTER, cut(request.name)), {"action": action})


CHANGES: Mapping[int, ChangeReader] = MappingProxyType(
    {
        _K.CREATE_TOPICS: ChangeReader(_create_topics, _created_topics),
        _K.DELETE_TOPICS: ChangeReader(_delete_topics, _deleted_topics),
        _K.CREATE_PARTITIONS: ChangeReader(_create_partitions, _created_partitions),
        _K.DELETE_RECORDS: ChangeReader(_delete_records, _deleted_records),
        _K.ALTER_CONFIGS: ChangeReader(_alter_configs, _altered_configs),
        _K.INCREMENTAL_ALTER_CONFIGS: ChangeReader(_alter_configs, _altered_configs),
        _K.CREATE_ACLS: ChangeReader(_create_acls, _created_acls),
        _K.DELETE_ACLS: ChangeReader(_delete_acls, _deleted_acls),
        _K.ALTER_USER_SCRAM_CREDENTIALS: ChangeReader(_alter_users, _altered_users),
        _K.CREATE_DELEGATION_TOKEN: ChangeReader(_create_token, _created_token),
        _K.RENEW_DELEGATION_TOKEN: ChangeReader(_of_token, _only),
        _K.EXPIRE_DELEGATION_TOKEN: ChangeReader(_of_token, _only),
        _K.ALTER_SERVICE_ACCOUNTS: ChangeReader(_alter_accounts, _altered_accounts),
        _K.CREATE_API_KEY: ChangeReader(_create_key, _created_key),
        _K.DELETE_API_KEYS: ChangeReader(_delete_keys, _deleted_keys),
        _K.DELETE_GROUPS: ChangeReader(_delete_groups, _deleted_groups),
        _K.OFFSET_DELETE: ChangeReader(_delete_offsets, _deleted_offsets),
        _K.OFFSET_COMMIT: ChangeReader(_commit_offsets, _committed_offsets, is_repeated=True),
        _K.ALTER_SHARE_GROUP_OFFSETS: ChangeReader(_alter_share_offsets, _altered_share_offsets),
        _K.DELETE_SHARE_GROUP_OFFSETS: ChangeReader(_alter_share_offsets, _deleted_share_offsets),
        _K.ALTER_CLIENT_QUOTAS: ChangeReader(_alter_quotas, _altered_quotas),
        _K.WRITE_TXN_MARKERS: ChangeReader(_write_markers, _wrote_markers),
        _K.ENTER_CLUSTER: ChangeReader(_of_cluster, _only),
        _K.CREATE_VIRTUAL_CLUSTER: ChangeReader(_create_cluster, _created_cluster),
        _K.ALTER_VIRTUAL_CLUSTER: ChangeReader(_alter_cluster, _only),
        _K.DELETE_VIRTUAL_CLUSTER: ChangeReader(_of_cluster, _only),
        _K.ALTER_ENVIRONMENTS: ChangeReader(_alter_environments, _altered_accounts),
        _K.ALTER_CLUSTER_KEYS: ChangeReader(_alter_keys, _only),
    }
)
"""The APIs by which administrators change something."""

WITHOUT_EFFECT = frozenset(
    {_K.ALTER_REPLICA_LOG_DIRS, _K.ELECT_LEADERS, _K.ALTER_PARTITION_REASSIGNMENTS, _K.UPDATE_FEATURES}
)
"""Administrative APIs that have nothing to change here: there are no replicas and no optional features."""


def requested_changes(api_key: int, request: Any) -> Iterable[RequestedChange]:
    """The changes that a request asks for. To be read before guards remove any."""
    return CHANGES[api_key].requested(request)

"""Two tenants never meet: not by the names they give, not by ids they know of each other, not by what is refused.

Every API and version is asked for another tenant's things; see `fixtures.isolation` for how, and `ROWS` for what each
API names. An API that is served and has no row fails here.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from fixtures.isolation import CLOSED, Fuzzer, Row, T, answer, request, row, shows
from fixtures.raw_client import ConnectionClosed
from fixtures.secured import PASSWORD, USER, Secured
from fixtures.tenants import Estate, Tenant, api_key, log_in, nobodys_things
from fixtures.token_issuer import AUDIENCE, TokenIssuer, answers_of_bearer
from fixtures.wire import Wire, batch, records_of

from penstock.groups.service import GroupService
from penstock.log.fetch_sessions import FetchSessions
from penstock.log.registry import Registry
from penstock.testing import Broker
from penstock.transactions.service import TransactionService
from penstock.wire.api_keys import ApiKey as K
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import fetch, share_acknowledge, share_fetch
from penstock.wire.messages.api_versions import ApiVersionsRequest
from penstock.wire.messages.create_virtual_cluster import CreateVirtualClusterRequest
from penstock.wire.messages.enter_cluster import EnterClusterRequest
from penstock.wire.messages.index import APIS
from penstock.wire.messages.init_producer_id import InitProducerIdRequest
from penstock.wire.messages.sasl_authenticate import SaslAuthenticateRequest
from penstock.wire.messages.sasl_handshake import SaslHandshakeRequest

STANDARD = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
ZERO_ID = bytes(16)
NOW_MS = int(time.time() * 1000)


def records(things: Mapping[str, Any]) -> bytes:
    return batch(b"x", timestamps=[NOW_MS])


def transactional(things: Mapping[str, Any]) -> bytes:
    return batch(
        b"x", timestamps=[NOW_MS], producer_id=things["producer_id"], producer_epoch=things["epoch"], base_sequence=0,
        is_transactional=True,
    )  # fmt: skip


def idempotent(things: Mapping[str, Any]) -> bytes:
    """The next batch of a producer of somebody else."""
    return batch(
        b"x", timestamps=[NOW_MS], producer_id=things["idempotent_id"], producer_epoch=0, base_sequence=1
    )  # fmt: skip


CLASSIC = {"GenerationId": 1, "GenerationIdOrMemberEpoch": 1}
CONSUMERS = {"GroupId": T("consumer_group"), "GroupIds": [T("consumer_group")], "MemberId": T("consumer_member")}
SHARERS = {"GroupId": T("share_group"), "GroupIds": [T("share_group")], "MemberId": T("share_member")}
STREAMS = {
    "UserEndpoint": None, "ClientTags": None, "TaskOffsets": None, "TaskEndOffsets": None, "InstanceId": None,
}  # fmt: skip
STREAMERS = {
    **STREAMS, "GroupId": T("streams_group"), "MemberId": T("streams_member"), "Topology": None, "ActiveTasks": None,
    "StandbyTasks": None, "WarmupTasks": None, "ProcessId": None, "RebalanceTimeoutMs": -1,
}  # fmt: skip
ALL_GROUPS = [T("group"), T("consumer_group"), T("share_group"), T("streams_group")]
PRODUCE = {"Acks": -1, "TransactionalId": None, "Records": records}
ACL_FILTER = {
    "ResourceTypeFilter": 2, "ResourceNameFilter": T("topic"), "PatternTypeFilter": 1, "PrincipalFilter": None,
    "HostFilter": None, "Operation": 1, "PermissionType": 1,
}  # fmt: skip
ANY_ACL = {**ACL_FILTER, "ResourceTypeFilter": 1, "ResourceNameFilter": None}
CONFIGS = {"ConfigurationKeys": None, "Configs": []}
SET = {"ConfigOperation": 0, "AlterConfigsResource.Configs": []}
GROUP_CONFIG = {"ResourceType": 32, "ResourceName": T("consumer_group")}
METRICS_CONFIG = {"ResourceType": 16, "ResourceName": T("subscription")}
LOGGERS = {"ResourceType": 8, "ResourceName": "1"}

ROWS: Mapping[K, Row] = {
    K.PRODUCE: row(
        PRODUCE, {**PRODUCE, "Acks": 1, "Records": idempotent},
        {**PRODUCE, "TransactionalId": T("transactional_id"), "Records": transactional},
        # In a partition of one's own, in the name of somebody else's producer.
        {**PRODUCE, "Name": "own", "TopicId": T("own_id"), "Records": idempotent},
        {
            **PRODUCE, "Name": "own", "TopicId": T("own_id"), "TransactionalId": T("transactional_id"),
            "Records": transactional,
        },
        changes=True, new=("base_offset", "log_append_time_ms"),
    ),
    K.FETCH: row(
        {"SessionEpoch": -1, "MaxBytes": 1000, "PartitionMaxBytes": 1000, "ForgottenTopicsData": []},
        {"SessionId": T("session"), "SessionEpoch": 1, "MaxBytes": 1000, "Topics": [], "ForgottenTopicsData": []},
        {"SessionId": T("session"), "SessionEpoch": -1, "MaxBytes": 1000, "Topics": [], "ForgottenTopicsData": []},
        changes=True,
    ),
    K.LIST_OFFSETS: row({"ReplicaId": -1, "Timestamp": -1, "CurrentLeaderEpoch": -1}),
    K.METADATA: row(
        {"TopicId": ZERO_ID, "AllowAutoTopicCreation": False}, {"Name": None, "AllowAutoTopicCreation": False},
        {"Topics": None, "AllowAutoTopicCreation": False},
    ),
    K.OFFSET_COMMIT: row(
        CLASSIC, {**CONSUMERS, "GenerationIdOrMemberEpoch": 1}, {"GenerationIdOrMemberEpoch": -1, "MemberId": ""},
        changes=True,
    ),
    K.OFFSET_FETCH: row(
        {"MemberId": None, "MemberEpoch": -1}, {"Topics": None, "MemberId": None, "MemberEpoch": -1},
        {**CONSUMERS, "MemberEpoch": 1},
    ),
    K.FIND_COORDINATOR: row({"KeyType": 0}, {"KeyType": 1, "Key": T("transactional_id")}, shows=False),
    K.JOIN_GROUP: row(
        {"SessionTimeoutMs": 10_000, "RebalanceTimeoutMs": 10_000, "ProtocolType": "consumer"}, changes=True,
        new=("member_id", "leader"),
    ),
    K.HEARTBEAT: row(CLASSIC),
    K.LEAVE_GROUP: row({}, {"Members.GroupInstanceId": "instance"}, changes=True),
    K.SYNC_GROUP: row({**CLASSIC, "Assignments": []}, changes=True),
    K.DESCRIBE_GROUPS: row({"Groups": ALL_GROUPS}),
    K.LIST_GROUPS: row(shows=False),  # It names nothing: the owner's answer is the same for both.
    K.SASL_HANDSHAKE: row({"Mechanism": "PLAIN"}, shows=False),
    K.API_VERSIONS: row(
        {"ClientSoftwareName": "x", "ClientSoftwareVersion": "1", "ClusterId": T("kafka_id"), "NodeId": 1}, shows=False
    ),
    K.CREATE_TOPICS: row(
        {"NumPartitions": 1, "ReplicationFactor": 1, "Configs": [], "validateOnly": True},
        {"NumPartitions": 1, "ReplicationFactor": 1, "Configs": []}, changes=True, new=("topic_id",),
    ),
    K.DELETE_TOPICS: row({"TopicId": ZERO_ID}, {"Name": None}, changes=True),
    K.DELETE_RECORDS: row({"Offset": 1}, changes=True),
    K.INIT_PRODUCER_ID: row(
        {"ProducerId": T("producer_id"), "ProducerEpoch": T("epoch"), "TransactionTimeoutMs": 1000},
        {"ProducerId": -1, "ProducerEpoch": -1, "TransactionTimeoutMs": 1000},
        {"TransactionalId": None, "ProducerId": T("idempotent_id"), "ProducerEpoch": 0, "TransactionTimeoutMs": 1000},
        changes=True, new=("producer_id",),
    ),
    K.OFFSET_FOR_LEADER_EPOCH: row({"ReplicaId": -1, "CurrentLeaderEpoch": -1, "LeaderEpoch": 0}),
    K.ADD_PARTITIONS_TO_TXN: row({}, {"VerifyOnly": True}, {"Name": "own"}, changes=True),
    K.ADD_OFFSETS_TO_TXN: row({}, changes=True),
    K.END_TXN: row({"Committed": True}, {"Committed": False}, changes=True),
    K.WRITE_TXN_MARKERS: row(
        {"CoordinatorEpoch": 0}, {"CoordinatorEpoch": 0, "Name": "own"}, changes=True, new=("producer_id",)
    ),
    K.TXN_OFFSET_COMMIT: row(
        {"GenerationIdOrMemberEpoch": -1, "MemberId": ""}, CLASSIC, {"Name": "own", "TopicId": T("own_id")},
        changes=True,
    ),
    K.DESCRIBE_ACLS: row(ACL_FILTER, ANY_ACL),
    K.CREATE_ACLS: row(
        {
            "ResourceType": 2, "ResourcePatternType": 3, "Principal": "User:x", "Host": "*", "Operation": 3,
            "PermissionType": 3,
        },
        shows=False, changes=True,
    ),
    K.DELETE_ACLS: row(ACL_FILTER, ANY_ACL, changes=True),
    K.DESCRIBE_CONFIGS: row(
        {"ResourceType": 2, **CONFIGS}, {**GROUP_CONFIG, **CONFIGS}, {**METRICS_CONFIG, **CONFIGS},
        {**LOGGERS, **CONFIGS}, {"ResourceType": 4, "ResourceName": "1", **CONFIGS},
    ),
    K.ALTER_CONFIGS: row(
        {"ResourceType": 2, "Configs": []}, {**GROUP_CONFIG, "Configs": []}, {**METRICS_CONFIG, "Configs": []},
        changes=True,
    ),
    K.INCREMENTAL_ALTER_CONFIGS: row(
        {"ResourceType": 2, "Resources.Configs.Name": "retention.ms", "Value": "1"},
        {**GROUP_CONFIG, "Resources.Configs.Name": "consumer.session.timeout.ms", "Value": "46000"},
        {**METRICS_CONFIG, "Resources.Configs.Name": "interval.ms", "Value": "1000"},
        {**LOGGERS, "Resources.Configs.Name": "root", "Value": "ERROR"}, changes=True,
    ),
    K.ALTER_REPLICA_LOG_DIRS: row({"Path": "/penstock"}),
    K.DESCRIBE_LOG_DIRS: row({}, {"Topics": None}),
    K.SASL_AUTHENTICATE: row({"AuthBytes": b"x"}, shows=False),
    K.CREATE_PARTITIONS: row({"Count": 3, "Assignments": None}, changes=True),
    K.CREATE_DELEGATION_TOKEN: row(
        {"Renewers": [], "MaxLifetimeMs": -1, "OwnerPrincipalType": "User", "OwnerPrincipalName": T("user")},
        shows=False, changes=True,
        new=("token_id", "hmac", "issue_timestamp_ms", "expiry_timestamp_ms", "max_timestamp_ms"),
    ),
    K.RENEW_DELEGATION_TOKEN: row({"Hmac": T("hmac"), "RenewPeriodMs": -1}, changes=True),
    K.EXPIRE_DELEGATION_TOKEN: row({"Hmac": T("hmac"), "ExpiryTimePeriodMs": -1}, changes=True),
    # The owner is the service account of either tenant; what it is told of its own tokens names nothing.
    K.DESCRIBE_DELEGATION_TOKEN: row(
        {"PrincipalType": "User", "PrincipalName": T("user")}, {"PrincipalType": "User", "PrincipalName": "app"},
        {"Owners": None}, shows=False,
    ),
    K.DELETE_GROUPS: row({"GroupsNames": ALL_GROUPS}, changes=True),
    K.ELECT_LEADERS: row({"ElectionType": 0}),
    K.ALTER_PARTITION_REASSIGNMENTS: row({"Replicas": [1]}),
    K.LIST_PARTITION_REASSIGNMENTS: row(shows=False),
    K.OFFSET_DELETE: row(changes=True),
    K.DESCRIBE_CLIENT_QUOTAS: row(
        {"EntityType": "user", "MatchType": 0, "Match": T("user")},
        {"EntityType": "user", "MatchType": 2, "Match": None},
    ),
    K.ALTER_CLIENT_QUOTAS: row(
        {"EntityType": "user", "EntityName": T("user"), "Key": "producer_byte_rate", "Remove": True}, shows=False,
        changes=True,
    ),
    K.DESCRIBE_USER_SCRAM_CREDENTIALS: row({"Name": T("user")}, {"Users": None}),
    K.ALTER_USER_SCRAM_CREDENTIALS: row(
        {"Name": T("user"), "Mechanism": 1, "Upsertions": []},
        {
            "Name": T("user"), "Mechanism": 1, "Deletions": [], "Iterations": 4096, "Salt": b"s" * 16,
            "SaltedPassword": b"p" * 32,
        },
        changes=True,
    ),
    K.DESCRIBE_QUORUM: row(shows=False),
    K.UPDATE_FEATURES: row({"Feature": "group.version", "MaxVersionLevel": 1, "UpgradeType": 1}, shows=False),
    K.DESCRIBE_CLUSTER: row({"EndpointType": 1}, shows=False),
    K.DESCRIBE_PRODUCERS: row(),
    K.DESCRIBE_TRANSACTIONS: row(),
    K.LIST_TRANSACTIONS: row(
        {"ProducerIdFilters": [], "DurationFilter": -1, "TransactionalIdPattern": T("transactional_id")},
        {"DurationFilter": -1, "TransactionalIdPattern": None},
    ),
    K.CONSUMER_GROUP_HEARTBEAT: row(
        {**CONSUMERS, "MemberEpoch": 1, "RebalanceTimeoutMs": -1, "SubscribedTopicRegex": None, "ServerAssignor": None,
         "InstanceId": None, "TopicPartitions": None},
        {**CONSUMERS, "MemberEpoch": -1, "RebalanceTimeoutMs": -1, "SubscribedTopicRegex": None,
         "ServerAssignor": None, "InstanceId": None, "TopicPartitions": None},
        # Somebody of one's own who subscribes what somebody else has.
        {"GroupId": "own", "MemberId": "own-member", "MemberEpoch": 0, "RebalanceTimeoutMs": 10_000,
         "SubscribedTopicRegex": None, "ServerAssignor": None, "InstanceId": None, "TopicPartitions": []},
        # Who says to have what is somebody else's, or asks for it by a pattern.
        {"GroupId": "own", "MemberId": "own-member-2", "MemberEpoch": 0, "RebalanceTimeoutMs": 10_000,
         "SubscribedTopicRegex": None, "ServerAssignor": None, "InstanceId": None},
        {"GroupId": "own-by-pattern", "MemberId": "own-member", "MemberEpoch": 0, "RebalanceTimeoutMs": 10_000,
         "SubscribedTopicRegex": T("topic"), "SubscribedTopicNames": [], "ServerAssignor": None, "InstanceId": None,
         "TopicPartitions": []},
        changes=True, new=("member_epoch",),
    ),
    K.CONSUMER_GROUP_DESCRIBE: row({"GroupIds": ALL_GROUPS}),
    K.GET_TELEMETRY_SUBSCRIPTIONS: row(
        {"ClientInstanceId": T("topic_id")}, shows=False, changes=True, new=("subscription_id", "error_code"),
    ),
    K.PUSH_TELEMETRY: row({"ClientInstanceId": T("topic_id")}, shows=False, changes=True),
    K.LIST_CONFIG_RESOURCES: row({"ResourceTypes": []}, shows=False),
    K.DESCRIBE_TOPIC_PARTITIONS: row({}, {"Topics": []}),
    K.SHARE_GROUP_HEARTBEAT: row(
        {**SHARERS, "MemberEpoch": 1}, {**SHARERS, "MemberEpoch": -1},
        {"GroupId": "own-share", "MemberId": "own-member", "MemberEpoch": 0}, changes=True,
        new=("member_epoch", "heartbeat_interval_ms"),
    ),
    K.SHARE_GROUP_DESCRIBE: row({"GroupIds": ALL_GROUPS}),
    K.SHARE_FETCH: row(
        {**SHARERS, "ShareSessionEpoch": 0, "MaxBytes": 1000, "MaxRecords": 10, "BatchSize": 10,
         "AcknowledgementBatches": [], "ForgottenTopicsData": []},
        {**SHARERS, "ShareSessionEpoch": 1, "MaxBytes": 1000, "MaxRecords": 10, "BatchSize": 10, "Topics": [],
         "ForgottenTopicsData": []},
        {**SHARERS, "ShareSessionEpoch": -1, "MaxBytes": 1000, "MaxRecords": 10, "BatchSize": 10, "Topics": [],
         "ForgottenTopicsData": []},
        changes=True,
    ),
    K.SHARE_ACKNOWLEDGE: row(
        {**SHARERS, "ShareSessionEpoch": 1, "FirstOffset": 0, "LastOffset": 0, "AcknowledgeTypes": [1]},
        {**SHARERS, "ShareSessionEpoch": -1, "FirstOffset": 0, "LastOffset": 0, "AcknowledgeTypes": [1]},
        changes=True,
    ),
    K.STREAMS_GROUP_HEARTBEAT: row(
        {**STREAMERS, "MemberEpoch": 1}, {**STREAMERS, "MemberEpoch": 2}, {**STREAMERS, "MemberEpoch": -1},
        # An application of one's own that reads what somebody else has.
        {
            **STREAMS, "GroupId": lambda things: f"own-{things['topic']}", "MemberId": "own-member", "MemberEpoch": 0,
            "ProcessId": "own", "RebalanceTimeoutMs": 10_000, "ActiveTasks": [], "StandbyTasks": [], "WarmupTasks": [],
            "SubtopologyId": "0", "Topology.Subtopologies.SourceTopics": [T("topic")], "StateChangelogTopics": [],
            "RepartitionSourceTopics": [], "CopartitionGroups": [],
        },
        changes=True, new=("member_epoch", "heartbeat_interval_ms"),
    ),
    K.STREAMS_GROUP_DESCRIBE: row({"GroupIds": ALL_GROUPS}),
    K.DESCRIBE_SHARE_GROUP_OFFSETS: row(SHARERS, {**SHARERS, "Groups.Topics": None}),
    K.ALTER_SHARE_GROUP_OFFSETS: row(SHARERS, changes=True),
    K.DELETE_SHARE_GROUP_OFFSETS: row(SHARERS, changes=True),
    K.DESCRIBE_SERVICE_ACCOUNTS: row({"Names": [T("account")]}, {"Names": None}),
    K.ALTER_SERVICE_ACCOUNTS: row({"Creations": [], "Deletions": [T("account")]}, changes=True),
    K.CREATE_API_KEY: row(
        {"Owner": T("account"), "LifetimeMs": -1}, changes=True, new=("key_id", "secret")
    ),
    K.DELETE_API_KEYS: row({"KeyIds": [T("key_id")]}, changes=True),
    K.ENTER_CLUSTER: row({"Name": T("cluster")}, shows=False),
    K.DESCRIBE_VIRTUAL_CLUSTERS: row({"Names": [T("cluster")]}, {"Names": None}),
    K.CREATE_VIRTUAL_CLUSTER: row({"Name": T("cluster"), "Environment": "default", "Limits": []}, shows=False),
    K.ALTER_VIRTUAL_CLUSTER: row({"Name": T("cluster"), "Limits": []}, shows=False),
    K.DELETE_VIRTUAL_CLUSTER: row({"Name": T("cluster")}, shows=False),
    K.DESCRIBE_ENVIRONMENTS: row(shows=False),
    K.DESCRIBE_CLUSTER_KEYS: row({"Names": [T("cluster")]}, {"Names": None}, shows=False),
    K.ALTER_CLUSTER_KEYS: row({"Name": T("cluster")}, shows=False),
    K.ALTER_ENVIRONMENTS: row({"Creations": [], "Deletions": [T("cluster")]}, shows=False),
}  # fmt: skip
"""How every API is asked. `shows=False`: what it is told does not depend on whose things it names, even if they are
the caller's own."""


@pytest.fixture(scope="module")
def issuer() -> Iterator[TokenIssuer]:
    issuer = TokenIssuer()
    yield issuer
    issuer.close()


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, issuer: TokenIssuer) -> Iterator[Secured]:
    """A broker with credentials, where within its cluster everybody may do everything that no ACL covers."""
    settings = {
        "authorizer.class.name": STANDARD, "allow.everyone.if.no.acl.found": "true", "super.users": "User:alice",
        # Whoever only asks for a topic would have one of that name from then on.
        "auto.create.topics.enable": "false", "connection.failed.authentication.delay.ms": "0",
    }  # fmt: skip
    secured = Secured(
        tmp_path_factory.mktemp("isolated"), settings=settings, token_key="the key of these tokens",
        arguments=("--client-metrics", "prometheus"), cluster_rules=r"RULE:^.*,O=([^,]+)$/$1/", issuer=issuer.url,
        audience=AUDIENCE, cluster_claim="clusters",
    )  # fmt: skip
    secured.server.start()
    yield secured
    assert secured.server.stop() == 0
    assert "Traceback" not in secured.server.log_tail(limit=10**9)


def served(wire: Wire) -> dict[K, range]:
    """Every API there is, with its versions, as our own command line is told."""
    asked = ApiVersionsRequest(client_software_name="penstock", client_software_version="1")
    keys = wire.call(K.API_VERSIONS, 4, asked).api_keys
    return {
        K(entry.api_key): range(max(entry.min_version, APIS[entry.api_key][1]), entry.max_version + 1) for entry in keys
    }


@pytest.fixture(scope="module")
def victim(secured: Secured) -> Iterator[Estate]:
    tenant = Tenant(secured, nobodys_things()["cluster"])
    estate = Estate(tenant.connect, cluster=tenant.name)
    estate.everything()
    estate.things["kafka_id"] = tenant.kafka_id
    yield estate
    estate.close()


def versions_of(key: K, versions: range) -> range:
    return range(max(versions.start, 3), versions.stop) if key is K.PRODUCE else versions


def test_every_served_api_has_a_row(victim: Estate) -> None:
    assert set(served(victim.wires[0])) - set(ROWS) == set()


def test_what_the_rows_ask_about_is_shown_to_its_owner(victim: Estate) -> None:
    """Else it would say nothing that others are not told of it."""
    nobodys = {**nobodys_things(), "kafka_id": "x" * 22, "own_id": ZERO_ID}
    own = {**victim.things, "own_id": ZERO_ID}
    silent = [
        key.name
        for key, versions in served(victim.wires[0]).items()
        if (ROWS[key].shows and not ROWS[key].changes)
        and not shows(victim.connect, key, versions_of(key, versions), ROWS[key], own, nobodys)
    ]
    assert silent == []


@pytest.mark.timeout(600)
def test_no_api_tells_anything_of_what_another_tenant_has(secured: Secured, victim: Estate) -> None:
    before = seen_by_owner(victim)
    complaints: list[str] = []
    asked = 0
    for key, versions in served(victim.wires[0]).items():
        # What one request makes must not be what the next one finds.
        tenant = Tenant(secured, f"asks-{key.name.lower().replace('_', '-')}")
        with tenant.connect() as wire:
            own_id = wire.create_topic("own")
        nobodys = {**nobodys_things(), "kafka_id": "x" * 22, "own_id": own_id, "token_id": "t" * 22}
        fuzzer = Fuzzer(tenant.connect, {**victim.things, "own_id": own_id}, nobodys)
        fuzzer.ask(key, versions_of(key, versions), ROWS[key])
        complaints += fuzzer.complaints
        asked += fuzzer.asked
    assert not complaints, "\n".join(complaints)
    assert asked > 600
    assert seen_by_owner(victim) == before, "somebody else has changed what is theirs"


def seen_by_owner(victim: Estate) -> dict[str, Any]:
    """Everything that a tenant has, as it is told of it."""
    own = {**victim.things, "own_id": ZERO_ID}
    seen: dict[str, Any] = {}
    for key, versions in served(victim.wires[0]).items():
        if ROWS[key].shows and not ROWS[key].changes:
            version = versions.stop - 1
            with victim.connect() as wire:
                seen[key.name] = [answer(wire, key, version, request(key, version, way, own)) for way in ROWS[key].ways]
    fetched = victim.wires[0].fetch(own["topic"])
    seen["records"] = [record.value for record in records_of(fetched.records)]
    return seen


# ---- logins ---------------------------------------------------------------------------------------------------------

READ = (
    K.FETCH, K.LIST_OFFSETS, K.METADATA, K.OFFSET_FETCH, K.FIND_COORDINATOR, K.DESCRIBE_GROUPS, K.DESCRIBE_ACLS,
    K.DESCRIBE_CONFIGS, K.DESCRIBE_PRODUCERS, K.DESCRIBE_TRANSACTIONS, K.LIST_TRANSACTIONS, K.CONSUMER_GROUP_DESCRIBE,
    K.SHARE_FETCH, K.DESCRIBE_USER_SCRAM_CREDENTIALS, K.DESCRIBE_DELEGATION_TOKEN, K.DESCRIBE_SERVICE_ACCOUNTS,
    K.DESCRIBE_VIRTUAL_CLUSTERS, K.ENTER_CLUSTER,
)  # fmt: skip


@pytest.mark.parametrize("way", ["token", "certificate"])
def test_whoever_is_in_a_cluster_by_a_token_or_certificate_is_told_nothing_either(
    secured: Secured, issuer: TokenIssuer, victim: Estate, way: str
) -> None:
    tenant = Tenant(secured, f"by-{way}")
    token = issuer.token("app", clusters=tenant.name)
    certificate = secured.authority.client("app", organization=tenant.name)

    def connect() -> Wire:
        if way == "certificate":
            return secured.wire("SSL", *certificate)
        wire = secured.wire("SASL_PLAINTEXT")
        assert answers_of_bearer(wire, token) == [(0, b"")]
        return wire

    with connect() as wire:
        assert wire.metadata([]).cluster_id == tenant.kafka_id
        own_id = wire.create_topic("own")
    nobodys = {**nobodys_things(), "kafka_id": "x" * 22, "own_id": own_id, "token_id": "t" * 22}
    fuzzer = Fuzzer(connect, {**victim.things, "own_id": own_id}, nobodys)
    table = served(victim.wires[0])
    for key in READ:
        fuzzer.ask(key, versions_of(key, table[key])[-1:], ROWS[key])
    assert not fuzzer.complaints, "\n".join(fuzzer.complaints)
    assert fuzzer.asked >= 2 * len(READ)


def test_no_login_gets_into_anothers_cluster_or_learns_that_there_is_one(
    secured: Secured, issuer: TokenIssuer, victim: Estate
) -> None:
    """Every credential with every way of naming a cluster: for one of somebody else's, and for one that is nobody's."""
    asks = Tenant(secured, "asks-to-get-in")
    tokens = {
        "of another": issuer.token("app", clusters=asks.name), "of none": issuer.token("app"),
        "of the platform's": issuer.token("alice", clusters=["platform", "default"]), "wrong": issuer.token(aud="x"),
    }  # fmt: skip
    certificate = secured.authority.client("app", organization=asks.name)
    theirs = {name: told(secured, asks, tokens, certificate, name) for name in (victim.things["cluster"], "nobody-has")}
    assert len(theirs["nobody-has"]) == 22
    assert theirs[victim.things["cluster"]] == theirs["nobody-has"]
    assert not [what for what, answers in theirs["nobody-has"].items() if answers[-1] in ((0, b""), (0, None))]
    own, password = asks.key
    right, wrong = (theirs["nobody-has"][f"password {own}, {secret}, True"] for secret in (password, "wrong"))
    assert right == wrong, "by the server name of another cluster, a key is as good as a wrong one"


def told(
    secured: Secured, asks: Tenant, tokens: Mapping[str, str], certificate: tuple[Path, Path], cluster: str
) -> dict[str, Any]:
    """What is answered to all who ask to get into a cluster."""
    answers: dict[str, Any] = {}
    names = (None, f"{cluster}.kafka.test", f"{asks.name}.kafka.test")
    for server_name, extension in product(names, (None, cluster)):
        if cluster not in (extension, (server_name or "").partition(".")[0]):
            continue
        for what, token in tokens.items():
            with secured.wire("SASL_SSL") if server_name is None else secured.named("SASL_SSL", server_name) as wire:
                what = f"token {what}, {server_name and server_name.replace(cluster, 'C')}, {bool(extension)}"
                answers[what] = answers_of_bearer(wire, token, extension)
    own, password = asks.key
    for server_name in (None, f"{cluster}.kafka.test"):
        for user, secret in ((own, password), (own, "wrong"), (f"{USER}@{cluster}", PASSWORD), (USER, PASSWORD)):
            if server_name is None and "@" not in user:
                continue
            with secured.wire("SASL_SSL") if server_name is None else secured.named("SASL_SSL", server_name) as wire:
                wire.call(K.SASL_HANDSHAKE, 1, SaslHandshakeRequest(mechanism="PLAIN"))
                sent = b"\0" + user.encode() + b"\0" + secret.encode()
                answer = wire.call(K.SASL_AUTHENTICATE, 2, SaslAuthenticateRequest(auth_bytes=sent))
                what = f"password {user.replace(cluster, 'C')}, {secret}, {bool(server_name)}"
                answers[what] = [(answer.error_code, answer.error_message)]
    with secured.named("SSL", f"{cluster}.kafka.test", *certificate) as wire:
        try:
            answers["certificate"] = [(0, wire.metadata([]).cluster_id)]
        except (ssl.SSLError, ConnectionError, ConnectionClosed):
            answers["certificate"] = [CLOSED]
    assert answers["certificate"] == [CLOSED]
    return answers


# ---- the same names -------------------------------------------------------------------------------------------------


def test_the_same_names_in_two_clusters_are_different_things(secured: Secured) -> None:
    one, other = Tenant(secured, "twin-one"), Tenant(secured, "twin-other")
    estates = []
    for tenant in (one, other):
        estate = Estate(tenant.connect, topic="same", group="same", transactional_id="same")
        estate.things["topic_id"] = estate.wires[0].create_topic("same")
        assert estate.wires[0].produce("same", batch(tenant.name.encode())).base_offset == 0
        estate.groups(estate.wires[0])
        estate.transaction(estate.wires[0])
        estates.append(estate)
    for tenant, estate in zip((one, other), estates, strict=True):
        values = [record.value for record in records_of(estate.wires[0].fetch("same").records)]
        assert values == [tenant.name.encode(), b"c", b"d"]
        again = estate.wires[0].call(
            K.INIT_PRODUCER_ID, 4,
            InitProducerIdRequest(transactional_id="same", transaction_timeout_ms=60_000),
        )  # fmt: skip
        # Its own transaction is aborted; nobody has fenced it but itself.
        assert again.error_code in (0, 51)
        assert again.producer_id in (estate.things["producer_id"], -1)
    assert estates[0].things["producer_id"] != estates[1].things["producer_id"]
    assert estates[0].things["topic_id"] != estates[1].things["topic_id"]
    for estate in estates:
        estate.close()


# ---- within a cluster -----------------------------------------------------------------------------------------------


def test_sessions_are_not_taken_over_by_another_principal_of_the_same_cluster(secured: Secured) -> None:
    """Who may read the same group and topic has sessions of its own. (With Apache Kafka it can go on with others'.)"""
    tenant = Tenant(secured, "shared-house")
    estate = Estate(tenant.connect)
    estate.everything()
    things = estate.things
    with log_in(secured) as admin:
        assert admin.call(K.ENTER_CLUSTER, 0, EnterClusterRequest(name=tenant.name)).error_code == 0
        key = api_key(admin, "neighbour")

    def fetched(wire: Wire, epoch: int) -> int:
        request = fetch.FetchRequest(
            max_wait_ms=0, min_bytes=1, max_bytes=1000, session_id=things["session"], session_epoch=epoch
        )
        return int(wire.call(K.FETCH, 11, request).error_code)

    def shared(wire: Wire, epoch: int) -> int:
        request = share_fetch.ShareFetchRequest(
            group_id=things["share_group"], member_id=things["share_member"], share_session_epoch=epoch, max_wait_ms=0,
            min_bytes=1, max_bytes=1000, max_records=10, batch_size=10,
        )  # fmt: skip
        return int(wire.call(K.SHARE_FETCH, 1, request).error_code)

    def accepted(wire: Wire, epoch: int) -> list[int]:
        """What is answered, and of the record."""
        said = share_acknowledge.AcknowledgementBatch(first_offset=2, last_offset=2, acknowledge_types=[1])
        partition = share_acknowledge.AcknowledgePartition(partition_index=0, acknowledgement_batches=[said])
        topic = share_acknowledge.AcknowledgeTopic(topic_id=things["topic_id"], partitions=[partition])
        request = share_acknowledge.ShareAcknowledgeRequest(
            group_id=things["share_group"], member_id=things["share_member"], share_session_epoch=epoch, topics=[topic]
        )
        answer = wire.call(K.SHARE_ACKNOWLEDGE, 1, request)
        return [int(answer.error_code), *(one.error_code for topic in answer.responses for one in topic.partitions)]

    assert shared(estate.wires[-1], 1) == ErrorCode.NONE
    with log_in(secured, *key) as neighbour:
        assert neighbour.fetch(things["topic"]).error_code == ErrorCode.NONE
        assert fetched(neighbour, 1) == ErrorCode.FETCH_SESSION_ID_NOT_FOUND
        fetched(neighbour, -1)  # It has no such session to end.
        for epoch in (1, -1):
            assert shared(neighbour, epoch) == ErrorCode.SHARE_SESSION_NOT_FOUND
            assert accepted(neighbour, epoch) == [ErrorCode.SHARE_SESSION_NOT_FOUND]
        assert shared(neighbour, 0) == ErrorCode.NONE, "a session of its own, though it says to be the same member"
        assert accepted(neighbour, 1) == [ErrorCode.NONE, ErrorCode.INVALID_RECORD_STATE], "which has nothing"
        assert fetched(estate.wires[0], 1) == ErrorCode.NONE
        with tenant.connect() as another:  # The same principal may go on.
            assert shared(another, 2) == ErrorCode.NONE
            assert accepted(another, 3) == [ErrorCode.NONE, ErrorCode.NONE]
            assert fetched(another, 2) == ErrorCode.NONE
        estate.wires[-1].close()
        with tenant.connect() as another:
            assert shared(another, 0) == ErrorCode.NONE, "it keeps nobody out"
    estate.close()


# ---- the fuzzer can fail ---------------------------------------------------------------------------------------------


def _any_topic_by_id(self: Registry, cluster_id: int, topic_id: bytes) -> Any:
    return next((topic for topic in self.topics() if topic.topic_id == topic_id), None)


def _any_topic_by_name(self: Registry, cluster_id: int, name: str) -> Any:
    return next((topic for topic in self.topics() if topic.name == name), None)


def _any_cell(self: TransactionService, key: tuple[int, str]) -> Any:
    return next((cell for known, cell in self._cells.items() if known[1] == key[1]), None)


async def _any_group(self: GroupService, key: tuple[int, str]) -> Any:
    return next((group for known, group in self.in_memory() if known[1] == key[1]), None)


def _any_session(self: FetchSessions, request: Any, named: Any, by_id: bool, owner: Any) -> Any:
    session = self._sessions.get(request.session_id)
    return original_continue(self, request, named, by_id, owner if session is None else session.owner)


original_continue = FetchSessions._continue

ABLATIONS = (
    (Registry, "by_id", _any_topic_by_id, (K.FETCH, K.METADATA, K.PRODUCE)),
    (Registry, "by_name", _any_topic_by_name, (K.LIST_OFFSETS, K.DESCRIBE_PRODUCERS)),
    (TransactionService, "cell", _any_cell, (K.DESCRIBE_TRANSACTIONS,)),
    (FetchSessions, "_continue", _any_session, (K.FETCH,)),
    (GroupService, "find", _any_group, (K.DESCRIBE_GROUPS,)),
)


@pytest.mark.parametrize(
    ("where", "name", "without", "apis"), ABLATIONS, ids=[f"{where.__name__}.{name}" for where, name, *_ in ABLATIONS]
)
def test_without_a_safeguard_the_fuzzer_complains(
    where: type, name: str, without: Any, apis: tuple[K, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Broker(settings={"auto.create.topics.enable": False}) as kafka:

        def inside(cluster: str) -> Wire:
            wire = Wire(kafka.bootstrap_servers)
            assert wire.call(K.ENTER_CLUSTER, 0, EnterClusterRequest(name=cluster)).error_code == 0
            return wire

        with Wire(kafka.bootstrap_servers) as admin:
            for cluster in ("victim", "asks"):
                made = admin.call(
                    K.CREATE_VIRTUAL_CLUSTER, 0, CreateVirtualClusterRequest(name=cluster, environment="default")
                )  # fmt: skip
                assert made.error_code == 0
        estate = Estate(lambda: inside("victim"))
        wire, things = estate.wires[0], estate.things
        things["topic_id"] = wire.create_topic(things["topic"])
        assert wire.produce(things["topic"], batch(b"a")).error_code == 0
        estate.groups(wire)
        estate.transaction(wire)
        estate.session(wire)
        with inside("asks") as asks:
            own_id = asks.create_topic("own")
        fuzzer = Fuzzer(
            lambda: inside("asks"), {**things, "own_id": own_id},
            {**nobodys_things(), "own_id": own_id},
        )  # fmt: skip
        table = served(wire)
        for key in apis:
            fuzzer.ask(key, versions_of(key, table[key]), ROWS[key])
        assert not fuzzer.complaints, "\n".join(fuzzer.complaints)
        monkeypatch.setattr(where, name, without)
        for key in apis:
            before = len(fuzzer.complaints)
            fuzzer.ask(key, versions_of(key, table[key]), ROWS[key])
            assert len(fuzzer.complaints) > before, key
        estate.close()

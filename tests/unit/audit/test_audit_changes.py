"""Which requests are administrative changes, of what, and that no secret of theirs is told."""

from __future__ import annotations

import json
import re
from collections.abc import Set
from typing import Any

import pytest

from penstock.audit.changes import CHANGES, WITHOUT_EFFECT, requested_changes
from penstock.audit.details import DETAILS_MAX, LISTED_MAX
from penstock.audit.events import Origin, encoded, event_of
from penstock.audit.model import Caller, Changed
from penstock.audit.outcomes import DENIED, error_codes_of, outcome_of
from penstock.base.acls import ResourceType
from penstock.base.randomness import SeededRandomness
from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import (
    alter_client_quotas,
    alter_cluster_keys,
    alter_configs,
    alter_environments,
    alter_service_accounts,
    alter_share_group_offsets,
    alter_user_scram_credentials,
    alter_virtual_cluster,
    create_acls,
    create_api_key,
    create_delegation_token,
    create_partitions,
    create_topics,
    create_virtual_cluster,
    delete_acls,
    delete_api_keys,
    delete_groups,
    delete_records,
    delete_share_group_offsets,
    delete_topics,
    delete_virtual_cluster,
    describe_configs,
    describe_environments,
    enter_cluster,
    expire_delegation_token,
    incremental_alter_configs,
    offset_commit,
    offset_delete,
    renew_delegation_token,
    write_txn_markers,
)

K, E = ApiKey, ErrorCode
SECRET = "hunter2-" + SeededRandomness("secret").token(8).hex()
RAW = SECRET.encode()
TOPIC_ID = b"\x01" * 16
ORIGIN = Origin("1", "run")
ACLS_THAT_FIT = 14


def told(
    key: ApiKey, request: Any, response: Any | None, denied: Set[ResourceType] = frozenset(ResourceType)
) -> list[tuple[str, str, dict[str, Any]]]:
    """What is told: subject without the cluster, status and message, and what belongs to the request."""
    found = []
    caller = Caller(1, "User:admin", "c", "10.0.0.7", 5, 1)
    answers = {} if response is None else {answer.key: answer for answer in CHANGES[key].results(response)}
    for asked in requested_changes(key, request):
        outcome = outcome_of(asked, answers.get(asked.key), denied)
        if outcome is None:
            continue
        resource, error, details = outcome
        text = encoded(event_of(Changed(0, caller, key, resource, error, details), "id", lambda _: "x", ORIGIN))
        assert SECRET not in text.decode()
        event = json.loads(text)
        result = event["data"]["result"]
        found.append(
            (
                event["subject"].removeprefix("crn:///kafka=x").removeprefix("/"),
                result["message"] or result["status"],
                event["data"]["request"].get("data", {}),
            )
        )
    return found


def _topic_result(name: str, code: int = 0, *, count: int = -1) -> Any:
    return create_topics.CreatableTopicResult(name=name, error_code=code, error_message=SECRET, num_partitions=count)


def _acl(module: Any, kind: str, **more: Any) -> Any:
    fields = {"resource_type": 2, "resource_name": "t", "principal": "User:bob", "host": "*", "operation": 3,
              "permission_type": 3, **more}  # fmt: skip
    return getattr(module, kind)(**fields)


def _commit(generation: int = -1, member: str = "") -> Any:
    partition = offset_commit.OffsetCommitRequestPartition(
        partition_index=0, committed_offset=3, committed_metadata=SECRET
    )
    return offset_commit.OffsetCommitRequest(
        group_id="g", generation_id_or_member_epoch=generation, member_id=member,
        topics=[offset_commit.OffsetCommitRequestTopic(name="t", partitions=[partition])],
    )  # fmt: skip


def _committed(code: int = 0) -> Any:
    partition = offset_commit.OffsetCommitResponsePartition(partition_index=0, error_code=code)
    return offset_commit.OffsetCommitResponse(
        topics=[offset_commit.OffsetCommitResponseTopic(name="t", partitions=[partition])]
    )


def _entity(kind: Any, entity_type: str, name: str | None) -> Any:
    return kind(entity_type=entity_type, entity_name=name)


RULE = {"principal": "User:bob", "host": "*", "operation": "READ", "permissionType": "ALLOW", "patternType": "LITERAL"}

CASES: list[tuple[ApiKey, Any, Any, list[tuple[str, str, dict[str, Any]]]]] = [
    (
        K.CREATE_TOPICS,
        create_topics.CreateTopicsRequest(
            topics=[
                create_topics.CreatableTopic(
                    name="a", configs=[create_topics.CreatableTopicConfig(name="retention.ms", value=SECRET)]
                ),
                create_topics.CreatableTopic(name="b"), create_topics.CreatableTopic(name="c"),
            ]
        ),
        create_topics.CreateTopicsResponse(
            topics=[_topic_result("b", E.TOPIC_ALREADY_EXISTS), _topic_result("a", count=3), _topic_result("c", 29)]
        ),
        [
            ("topic=a", "SUCCESS", {"configs": ["retention.ms"], "num_partitions": 3}),
            ("topic=b", "TOPIC_ALREADY_EXISTS", {"configs": []}),
        ],
    ),
    (
        K.DELETE_TOPICS,
        delete_topics.DeleteTopicsRequest(
            topics=[
                delete_topics.DeleteTopicState(name="a"), delete_topics.DeleteTopicState(name=None, topic_id=TOPIC_ID),
                delete_topics.DeleteTopicState(name=None, topic_id=b"\x02" * 16),
            ]
        ),
        delete_topics.DeleteTopicsResponse(
            responses=[
                delete_topics.DeletableTopicResult(name="by-id", topic_id=TOPIC_ID),
                delete_topics.DeletableTopicResult(name="a", topic_id=b"\x03" * 16),
                delete_topics.DeletableTopicResult(name=None, topic_id=b"\x02" * 16, error_code=100),
            ]
        ),
        [("topic=a", "SUCCESS", {}), ("topic=by-id", "SUCCESS", {}), ("topic=" + "02" * 16, "UNKNOWN_TOPIC_ID", {})],
    ),
    (
        K.CREATE_PARTITIONS,
        create_partitions.CreatePartitionsRequest(
            topics=[create_partitions.CreatePartitionsTopic(name="a", count=5)], timeout_ms=1, validate_only=False
        ),
        create_partitions.CreatePartitionsResponse(results=[create_partitions.CreatePartitionsTopicResult(name="a")]),
        [("topic=a", "SUCCESS", {"num_partitions": 5})],
    ),
    (
        K.DELETE_RECORDS,
        delete_records.DeleteRecordsRequest(
            topics=[
                delete_records.DeleteRecordsTopic(
                    name="a", partitions=[delete_records.DeleteRecordsPartition(partition_index=1, offset=7)]
                )
            ]
        ),
        delete_records.DeleteRecordsResponse(
            topics=[
                delete_records.DeleteRecordsTopicResult(
                    name="a", partitions=[delete_records.DeleteRecordsPartitionResult(partition_index=1, error_code=1)]
                )
            ]
        ),
        [("topic=a", "OFFSET_OUT_OF_RANGE", {"before_offsets": {"1": 7}})],
    ),
    (
        K.ALTER_CONFIGS,
        alter_configs.AlterConfigsRequest(
            resources=[
                alter_configs.AlterConfigsResource(
                    resource_type=4, resource_name="1",
                    configs=[alter_configs.AlterableConfig(name="sasl.jaas.config", value=SECRET)],
                )
            ],
            validate_only=False,
        ),
        alter_configs.AlterConfigsResponse(
            responses=[
                alter_configs.AlterConfigsResourceResponse(
                    error_code=40, error_message=SECRET, resource_type=4, resource_name="1"
                )
            ]
        ),
        [("", "INVALID_CONFIG", {"configs": ["sasl.jaas.config"], "broker": "1"})],
    ),
    (
        K.INCREMENTAL_ALTER_CONFIGS,
        incremental_alter_configs.IncrementalAlterConfigsRequest(
            resources=[
                incremental_alter_configs.AlterConfigsResource(
                    resource_type=32, resource_name="g",
                    configs=[incremental_alter_configs.AlterableConfig(name="x", value=SECRET)],
                )
            ]
        ),
        incremental_alter_configs.IncrementalAlterConfigsResponse(
            responses=[incremental_alter_configs.AlterConfigsResourceResponse(resource_type=32, resource_name="g")]
        ),
        [("group=g", "SUCCESS", {"configs": ["x"]})],
    ),
    (
        K.CREATE_ACLS,
        create_acls.CreateAclsRequest(
            creations=[_acl(create_acls, "AclCreation"), _acl(create_acls, "AclCreation", resource_type=4)]
        ),
        create_acls.CreateAclsResponse(
            results=[
                create_acls.AclCreationResult(),
                create_acls.AclCreationResult(error_code=42, error_message=SECRET),
            ]
        ),
        [("topic=t", "SUCCESS", RULE), ("", "INVALID_REQUEST", RULE)],
    ),
    (
        K.DELETE_ACLS,
        delete_acls.DeleteAclsRequest(
            filters=[
                delete_acls.DeleteAclsFilter(
                    resource_type_filter=2, resource_name_filter="t", principal_filter=None, host_filter=None,
                    operation=1, permission_type=1,
                )
            ]
        ),
        delete_acls.DeleteAclsResponse(
            filter_results=[
                delete_acls.DeleteAclsFilterResult(
                    matching_acls=[_acl(delete_acls, "DeleteAclsMatchingAcl")] * (LISTED_MAX + 5)
                )
            ]
        ),
        [
            (
                "topic=t", "SUCCESS",
                {
                    "removed": LISTED_MAX + 5,
                    "acls": [{"resourceType": "TOPIC", "resourceName": "t", **RULE}] * ACLS_THAT_FIT,
                    "shortened": True,
                },
            )
        ],
    ),
    (
        K.ALTER_USER_SCRAM_CREDENTIALS,
        alter_user_scram_credentials.AlterUserScramCredentialsRequest(
            deletions=[alter_user_scram_credentials.ScramCredentialDeletion(name="bob", mechanism=1)],
            upsertions=[
                alter_user_scram_credentials.ScramCredentialUpsertion(
                    name="eve", mechanism=2, iterations=4096, salt=RAW, salted_password=RAW
                )
            ],
        ),
        alter_user_scram_credentials.AlterUserScramCredentialsResponse(
            results=[
                alter_user_scram_credentials.AlterUserScramCredentialsResult(user="bob", error_code=91),
                alter_user_scram_credentials.AlterUserScramCredentialsResult(user="eve"),
            ]
        ),
        [
            ("user=bob", "RESOURCE_NOT_FOUND", {"action": "delete", "mechanism": "SCRAM-SHA-256"}),
            ("user=eve", "SUCCESS", {"action": "upsert", "mechanism": "SCRAM-SHA-512"}),
        ],
    ),
    (
        K.CREATE_DELEGATION_TOKEN,
        create_delegation_token.CreateDelegationTokenRequest(
            owner_principal_type="User", owner_principal_name="bob",
            renewers=[create_delegation_token.CreatableRenewers(principal_type="User", principal_name="eve")],
        ),
        create_delegation_token.CreateDelegationTokenResponse(token_id="the-id", hmac=RAW),
        [("delegation-token=the-id", "SUCCESS", {"renewers": ["User:eve"], "owner": "User:bob"})],
    ),
    (
        K.RENEW_DELEGATION_TOKEN,
        renew_delegation_token.RenewDelegationTokenRequest(hmac=RAW),
        renew_delegation_token.RenewDelegationTokenResponse(error_code=62),
        [("", "DELEGATION_TOKEN_NOT_FOUND", {})],
    ),
    (
        K.EXPIRE_DELEGATION_TOKEN,
        expire_delegation_token.ExpireDelegationTokenRequest(hmac=RAW),
        expire_delegation_token.ExpireDelegationTokenResponse(),
        [("", "SUCCESS", {})],
    ),
    (
        K.ALTER_SERVICE_ACCOUNTS,
        alter_service_accounts.AlterServiceAccountsRequest(
            creations=[alter_service_accounts.ServiceAccountCreation(name="app", description=SECRET)],
            deletions=["old"],
        ),
        alter_service_accounts.AlterServiceAccountsResponse(
            results=[
                alter_service_accounts.AlterServiceAccountsResult(name="app"),
                alter_service_accounts.AlterServiceAccountsResult(name="old", error_code=91, error_message=SECRET),
            ]
        ),
        [
            ("service-account=app", "SUCCESS", {"action": "create"}),
            ("service-account=old", "RESOURCE_NOT_FOUND", {"action": "delete"}),
        ],
    ),
    (
        K.CREATE_API_KEY,
        create_api_key.CreateApiKeyRequest(owner="app", description=SECRET),
        create_api_key.CreateApiKeyResponse(key_id="KEY", secret=SECRET),
        [("api-key=KEY", "SUCCESS", {"owner": "app"})],
    ),
    (
        K.DELETE_API_KEYS,
        delete_api_keys.DeleteApiKeysRequest(key_ids=["KEY"]),
        delete_api_keys.DeleteApiKeysResponse(results=[delete_api_keys.DeleteApiKeysResult(key_id="KEY")]),
        [("api-key=KEY", "SUCCESS", {})],
    ),
    (
        K.DELETE_GROUPS,
        delete_groups.DeleteGroupsRequest(groups_names=["g"]),
        delete_groups.DeleteGroupsResponse(
            results=[delete_groups.DeletableGroupResult(group_id="g", error_code=E.NON_EMPTY_GROUP)]
        ),
        [("group=g", "NON_EMPTY_GROUP", {})],
    ),
    (
        K.OFFSET_DELETE,
        offset_delete.OffsetDeleteRequest(
            group_id="g", topics=[offset_delete.OffsetDeleteRequestTopic(name="t", partitions=[])]
        ),
        offset_delete.OffsetDeleteResponse(),
        [("group=g", "SUCCESS", {"topics": ["t"]})],
    ),
    (
        K.OFFSET_COMMIT, _commit(), _committed(E.UNKNOWN_MEMBER_ID),
        [("group=g", "UNKNOWN_MEMBER_ID", {"topics": ["t"]})],
    ),
    (K.OFFSET_COMMIT, _commit(3, "member"), _committed(), []),
    (K.OFFSET_COMMIT, _commit(-1, "member"), _committed(), []),
    (
        K.ALTER_SHARE_GROUP_OFFSETS,
        alter_share_group_offsets.AlterShareGroupOffsetsRequest(
            group_id="g", topics=[alter_share_group_offsets.AlterShareGroupOffsetsRequestTopic(topic_name="t")]
        ),
        alter_share_group_offsets.AlterShareGroupOffsetsResponse(error_message=SECRET),
        [("group=g", "SUCCESS", {"topics": ["t"]})],
    ),
    (
        K.DELETE_SHARE_GROUP_OFFSETS,
        delete_share_group_offsets.DeleteShareGroupOffsetsRequest(
            group_id="g", topics=[delete_share_group_offsets.DeleteShareGroupOffsetsRequestTopic(topic_name="t")]
        ),
        delete_share_group_offsets.DeleteShareGroupOffsetsResponse(error_code=E.GROUP_ID_NOT_FOUND),
        [("group=g", "GROUP_ID_NOT_FOUND", {"topics": ["t"]})],
    ),
    (
        K.ALTER_CLIENT_QUOTAS,
        alter_client_quotas.AlterClientQuotasRequest(
            entries=[
                alter_client_quotas.AlterClientQuotasRequestEntryData(
                    entity=[
                        alter_client_quotas.AlterClientQuotasRequestEntityData(entity_type="user", entity_name="bob"),
                        _entity(alter_client_quotas.AlterClientQuotasRequestEntityData, "client-id", None),
                    ],
                    ops=[
                        alter_client_quotas.OpData(key="producer_byte_rate", value=5.0),
                        alter_client_quotas.OpData(key="consumer_byte_rate", remove=True),
                    ],
                )
            ]
        ),
        alter_client_quotas.AlterClientQuotasResponse(
            entries=[
                alter_client_quotas.AlterClientQuotasResponseEntryData(
                    error_message=SECRET,
                    entity=[
                        _entity(alter_client_quotas.AlterClientQuotasResponseEntityData, "client-id", None),
                        alter_client_quotas.AlterClientQuotasResponseEntityData(entity_type="user", entity_name="bob"),
                    ],
                )
            ]
        ),
        [
            (
                "", "SUCCESS",
                {
                    "entity": {"user": "bob", "client-id": None},
                    "quotas": {"producer_byte_rate": 5.0, "consumer_byte_rate": None},
                },
            )
        ],
    ),
    (
        K.ALTER_CLIENT_QUOTAS,
        alter_client_quotas.AlterClientQuotasRequest(
            entries=[
                alter_client_quotas.AlterClientQuotasRequestEntryData(
                    entity=[],
                    ops=[
                        alter_client_quotas.OpData(key=key, value=float(key)) for key in ("nan", "inf", "-inf")
                    ],
                )
            ]
        ),
        alter_client_quotas.AlterClientQuotasResponse(
            entries=[alter_client_quotas.AlterClientQuotasResponseEntryData(error_code=42, entity=[])]
        ),
        [("", "INVALID_REQUEST", {"entity": {}, "quotas": {"nan": "nan", "inf": "inf", "-inf": "-inf"}})],
    ),
    (
        K.WRITE_TXN_MARKERS,
        write_txn_markers.WriteTxnMarkersRequest(
            markers=[
                write_txn_markers.WritableTxnMarker(
                    producer_id=9, transaction_result=False, topics=[write_txn_markers.WritableTxnMarkerTopic(name="t")]
                )
            ]
        ),
        write_txn_markers.WriteTxnMarkersResponse(
            markers=[write_txn_markers.WritableTxnMarkerResult(producer_id=9, topics=[])]
        ),
        [("", "SUCCESS", {"producer_id": 9, "result": "abort", "topics": ["t"]})],
    ),
    (
        K.ENTER_CLUSTER, enter_cluster.EnterClusterRequest(name="acme"),
        enter_cluster.EnterClusterResponse(error_code=E.RESOURCE_NOT_FOUND, error_message=SECRET),
        [("virtual-cluster=acme", "RESOURCE_NOT_FOUND", {})],
    ),
    (
        K.CREATE_VIRTUAL_CLUSTER,
        create_virtual_cluster.CreateVirtualClusterRequest(
            name="acme", environment="production", description=SECRET,
            limits=[create_virtual_cluster.LimitOfNewCluster(key="partitions", value=9.0)],
        ),
        create_virtual_cluster.CreateVirtualClusterResponse(kafka_cluster_id="lkc"),
        [
            (
                "virtual-cluster=acme", "SUCCESS",
                {"environment": "production", "limits": {"partitions": 9.0}, "kafka_cluster_id": "lkc"},
            )
        ],
    ),
    (
        K.ALTER_VIRTUAL_CLUSTER,
        alter_virtual_cluster.AlterVirtualClusterRequest(
            name="acme", description=SECRET,
            limits=[
                alter_virtual_cluster.AlteredLimit(key="partitions", remove=True),
                alter_virtual_cluster.AlteredLimit(key="topics", value=float("inf")),
            ],
        ),
        alter_virtual_cluster.AlterVirtualClusterResponse(),
        [("virtual-cluster=acme", "SUCCESS", {"limits": {"partitions": None, "topics": "inf"}})],
    ),
    (
        K.DELETE_VIRTUAL_CLUSTER, delete_virtual_cluster.DeleteVirtualClusterRequest(name="acme"),
        delete_virtual_cluster.DeleteVirtualClusterResponse(error_message=None),
        [("virtual-cluster=acme", "SUCCESS", {})],
    ),
    (
        K.ALTER_CLUSTER_KEYS, alter_cluster_keys.AlterClusterKeysRequest(name="acme", action=3),
        alter_cluster_keys.AlterClusterKeysResponse(state="erased", error_message=SECRET),
        [("virtual-cluster=acme", "SUCCESS", {"action": "erase"})],
    ),
    (
        K.ALTER_ENVIRONMENTS,
        alter_environments.AlterEnvironmentsRequest(creations=["new"], deletions=["old", "hidden"]),
        alter_environments.AlterEnvironmentsResponse(
            results=[
                alter_environments.AlterEnvironmentsResult(name="new"),
                alter_environments.AlterEnvironmentsResult(name="old", error_code=44, error_message=SECRET),
                alter_environments.AlterEnvironmentsResult(name="hidden", error_code=31),
            ]
        ),
        [
            ("environment=new", "SUCCESS", {"action": "create"}),
            ("environment=old", "POLICY_VIOLATION", {"action": "delete"}),
        ],
    ),
]  # fmt: skip


IDS = [f"{key.name}-{number}" for number, (key, *_) in enumerate(CASES)]


@pytest.mark.parametrize(("key", "request_", "response", "expected"), CASES, ids=IDS)
def test_each_change_has_its_event(
    key: ApiKey, request_: Any, response: Any, expected: list[tuple[str, str, dict[str, Any]]]
) -> None:
    assert told(key, request_, response) == expected


@pytest.mark.parametrize(("key", "request_", "response", "expected"), CASES, ids=IDS)
def test_a_change_without_a_response_has_an_event_of_unknown_outcome(
    key: ApiKey, request_: Any, response: Any, expected: list[Any]
) -> None:
    assert bool(told(key, request_, None)) == bool(expected)
    assert {message for _, message, _ in told(key, request_, None)} <= {
        "The request was not answered; it may have been carried out."
    }


def test_asking_what_would_happen_changes_nothing() -> None:
    configs = alter_configs.AlterConfigsResource(resource_type=2, resource_name="t")
    for key, request in (
        (K.CREATE_TOPICS, create_topics.CreateTopicsRequest(topics=[create_topics.CreatableTopic(name="a")])),
        (K.CREATE_PARTITIONS, create_partitions.CreatePartitionsRequest(topics=[])),
        (K.ALTER_CONFIGS, alter_configs.AlterConfigsRequest(resources=[configs])),
        (K.INCREMENTAL_ALTER_CONFIGS, incremental_alter_configs.IncrementalAlterConfigsRequest(resources=[configs])),
        (K.ALTER_CLIENT_QUOTAS, alter_client_quotas.AlterClientQuotasRequest(entries=[])),
    ):
        request.validate_only = True
        assert not list(requested_changes(key, request))


def test_a_denial_without_a_logged_decision_has_an_event() -> None:
    request = create_topics.CreateTopicsRequest(topics=[create_topics.CreatableTopic(name="a")])
    response = create_topics.CreateTopicsResponse(topics=[_topic_result("a", E.TOPIC_AUTHORIZATION_FAILED)])
    assert told(K.CREATE_TOPICS, request, response, {ResourceType.TOPIC}) == []
    failed = [("topic=a", "TOPIC_AUTHORIZATION_FAILED", {"configs": []})]
    assert told(K.CREATE_TOPICS, request, response, {ResourceType.CLUSTER}) == failed
    token = create_delegation_token.CreateDelegationTokenRequest(owner_principal_type="User", owner_principal_name="b")
    refused = create_delegation_token.CreateDelegationTokenResponse(error_code=E.DELEGATION_TOKEN_AUTHORIZATION_FAILED)
    assert told(K.CREATE_DELEGATION_TOKEN, token, refused, {ResourceType.USER}) == []
    assert len(told(K.CREATE_DELEGATION_TOKEN, token, refused, set())) == 1


@pytest.mark.parametrize("code", [E.NONE, E.CLUSTER_AUTHORIZATION_FAILED, E.INVALID_CONFIG])
def test_answers_that_deny(code: E) -> None:
    fine = {"error_message": None, "resource_type": 8, "resource_name": "1"}
    for key, response in (
        (
            K.DESCRIBE_CONFIGS,
            describe_configs.DescribeConfigsResponse(
                results=[describe_configs.DescribeConfigsResult(error_code=one, **fine) for one in (0, code)]
            ),
        ),
        (
            K.ALTER_CONFIGS,
            alter_configs.AlterConfigsResponse(
                responses=[alter_configs.AlterConfigsResourceResponse(error_code=one, **fine) for one in (0, code)]
            ),
        ),
        (K.ENTER_CLUSTER, enter_cluster.EnterClusterResponse(error_code=code)),
        (K.DESCRIBE_ENVIRONMENTS, describe_environments.DescribeEnvironmentsResponse(error_code=code)),
    ):
        assert (DENIED in error_codes_of(key, response)) == (code == E.CLUSTER_AUTHORIZATION_FAILED)


def test_what_waits_of_a_change_is_small_however_much_it_asks_for() -> None:
    """The largest events of all: fifty texts of the most characters, and an answer that completes them."""
    long = ["x" * 249 + f"{number:03}" for number in range(60)]
    configs = [create_topics.CreatableTopicConfig(name=name * 9, value=SECRET) for name in long]
    topic = create_topics.CreatableTopic(name="a", num_partitions=9, configs=configs)
    ((_, _, details),) = told(
        K.CREATE_TOPICS, create_topics.CreateTopicsRequest(topics=[topic]),
        create_topics.CreateTopicsResponse(topics=[_topic_result("a", count=9)]),
    )  # fmt: skip
    assert len(json.dumps(details)) < DETAILS_MAX + 100
    assert (details["num_partitions"], details["shortened"]) == (9, True)
    assert 0 < len(details["configs"]) < LISTED_MAX


def test_every_api_that_sounds_like_a_change_is_in_a_table() -> None:
    changing = {
        key for key in ApiKey if re.match("ALTER|CREATE|DELETE|UPDATE|RENEW|EXPIRE|ELECT|OFFSET_DELETE", key.name)
    }
    internal = {K.DELETE_SHARE_GROUP_STATE}  # Between brokers of Apache Kafka; not served.
    assert changing - internal <= set(CHANGES) | WITHOUT_EFFECT
    assert {case[0] for case in CASES} == set(CHANGES)

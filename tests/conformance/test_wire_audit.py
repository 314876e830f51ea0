"""The audit log on the wire: who came in and who did not, who was refused what, what was changed; and no secret."""

from __future__ import annotations

import contextlib
import json
import ssl
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures.raw_client import ConnectionClosed
from fixtures.secured import PASSWORD, USER, Secured
from fixtures.streams_members import Member, topology
from fixtures.tenants import Tenant, log_in
from fixtures.token_issuer import AUDIENCE, TokenIssuer
from fixtures.waiting import eventually
from fixtures.wire import Wire, batch, fetch_topic

from penstock.base.acls import Operation, ResourceType
from penstock.cli.kafka import sasl
from penstock.cli.kafka.client_config import Security
from penstock.testing.certificates import Authority
from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import create_acls, create_topics, describe_configs, incremental_alter_configs
from penstock.wire.messages import fetch as fetching
from penstock.wire.messages.alter_service_accounts import AlterServiceAccountsRequest, ServiceAccountCreation
from penstock.wire.messages.alter_user_scram_credentials import (
    AlterUserScramCredentialsRequest,
    ScramCredentialUpsertion,
)
from penstock.wire.messages.alter_virtual_cluster import AlteredLimit, AlterVirtualClusterRequest
from penstock.wire.messages.create_api_key import CreateApiKeyRequest
from penstock.wire.messages.create_delegation_token import CreateDelegationTokenRequest
from penstock.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from penstock.wire.messages.enter_cluster import EnterClusterRequest
from penstock.wire.messages.metadata import MetadataRequest
from penstock.wire.messages.sasl_authenticate import SaslAuthenticateRequest
from penstock.wire.messages.sasl_handshake import SaslHandshakeRequest

pytestmark = pytest.mark.differs("Apache Kafka has no audit log")
TOPIC = "confluent-audit-log-events"
TOKEN_KEY = "the key of all delegation tokens"
SALT, SALTED = b"a salt that nobody sees", b"a salted password of 32 bytes..."
WRONG, TYPED, VALUE = "a-wrong-password", "typed-my-password-here", "a-value-with-a-secret"


class Audited:
    """A broker that tells, and what it has told."""

    def __init__(self, secured: Secured, issuer: TokenIssuer) -> None:
        self.secured, self.issuer = secured, issuer
        self.secrets: list[bytes] = [
            secret.encode() for secret in (PASSWORD, TOKEN_KEY, WRONG, TYPED, VALUE)
        ] + [SALT, SALTED]  # fmt: skip
        self.connect()

    def connect(self) -> None:
        """Have an administrator at work, and another one who reads."""
        self.admin, self.reader = (
            self.log_in(self.secured.wire("SASL_SSL"), "SCRAM-SHA-512") for _ in range(2)
        )  # fmt: skip
        assert not self.reader.call(ApiKey.ENTER_CLUSTER, 0, EnterClusterRequest(name="platform")).error_code

    def close(self) -> None:
        """Send both home."""
        self.admin.close()
        self.reader.close()

    def log_in(self, wire: Wire, mechanism: str, user: str = USER, password: str = PASSWORD) -> Wire:
        """A connection that is let in."""
        assert not attempt(wire, mechanism, user, password).error_code
        return wire

    def bytes(self) -> list[bytes]:
        """Everything that was told."""
        if self.reader.metadata([TOPIC]).topics[0].error_code:
            return []
        values: list[bytes] = []
        while records := self.reader.fetch_records(TOPIC, len(values)):
            values += [record.value or b"" for record in records]
        return values

    def find(self, wanted: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """The first event that is wanted."""

        def probe() -> dict[str, Any] | None:
            return next((event for event in map(json.loads, self.bytes()) if wanted(event)), None)

        found = eventually(probe, what=what)
        assert found is not None
        return found

    def attempt(self, mechanism: str, status: str, **more: str) -> dict[str, Any]:
        """The event of an attempt."""

        def wanted(event: dict[str, Any]) -> bool:
            if not event["type"].endswith("/authentication"):
                return False
            data = event["data"]
            facts = data["authenticationInfo"] | data["authenticationInfo"]["metadata"] | data["result"]
            return facts["mechanism"] == mechanism and facts["status"] == status and more.items() <= facts.items()

        return self.find(wanted, f"{status} by {mechanism}")

    def change(self, method: str, resource: str) -> dict[str, Any]:
        """The event of a change."""
        return self.find(
            lambda event: (
                event["type"].endswith("/request")
                and event["data"]["methodName"] == f"kafka.{method}"
                and event["subject"].endswith(resource)
            ),
            f"{method} of {resource}",
        )


def attempt(wire: Wire, mechanism: str, user: str, password: str) -> Any:
    """The last answer of a whole exchange."""
    shaken = wire.call(ApiKey.SASL_HANDSHAKE, 1, SaslHandshakeRequest(mechanism=mechanism))
    if shaken.error_code:
        return shaken
    exchange = sasl.messages(Security(mechanism=mechanism, user=user, password=password), "abcdefgh")
    token = next(exchange)
    while True:
        answer = wire.call(ApiKey.SASL_AUTHENTICATE, 2, SaslAuthenticateRequest(auth_bytes=token))
        try:
            if answer.error_code:
                return answer
            token = exchange.send(bytes(answer.auth_bytes))
        except StopIteration:
            return answer


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audited]:
    issuer = TokenIssuer()
    settings = {"authorizer.class.name": "", "super.users": f"User:{USER}"}
    secured = Secured(
        tmp_path_factory.mktemp("audited"), settings, token_key=TOKEN_KEY, issuer=issuer.url, audience=AUDIENCE
    )
    secured.server.start()
    audited = Audited(secured, issuer)
    yield audited
    told, log = b"\n".join(audited.bytes()), secured.server.log_tail(limit=10**9)
    audited.close()
    assert secured.server.stop() == 0
    issuer.close()
    assert "Traceback" not in log
    for secret in audited.secrets:
        assert secret not in told
        assert secret.decode("latin-1") not in log


# ---- authentication ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_passwords(audited: Audited, mechanism: str) -> None:
    with audited.secured.wire("SASL_PLAINTEXT") as wire:
        audited.log_in(wire, mechanism)
    for user, password in ((USER, WRONG), (TYPED, PASSWORD)):
        with audited.secured.wire("SASL_PLAINTEXT") as wire:
            assert attempt(wire, mechanism, user, password).error_code
    spoken = f"SASL_PLAINTEXT/{mechanism}"
    event = audited.attempt(spoken, "SUCCESS", principal=f"User:{USER}", identifier=USER, message="")
    assert event["data"]["requestMetadata"]["client_address"] == "127.0.0.1"
    assert event["data"]["methodName"] == "kafka.Authentication"
    event = audited.attempt(spoken, "UNAUTHENTICATED", principal="None:UNKNOWN_USER", identifier=USER)
    assert event["data"]["result"]["message"]
    event = audited.attempt(spoken, "UNKNOWN_USER_DENIED", principal="None:UNKNOWN_USER")
    assert "identifier" not in event["data"]["authenticationInfo"]["metadata"]


def test_a_mechanism_that_is_not_offered(audited: Audited) -> None:
    with audited.secured.wire("SASL_SSL") as wire:
        assert wire.call(ApiKey.SASL_HANDSHAKE, 1, SaslHandshakeRequest(mechanism="GSSAPI")).error_code
    event = audited.attempt("SASL_SSL", "UNAUTHENTICATED")
    assert event["data"]["result"]["message"] == "The mechanism is not offered."


def test_client_certificates(audited: Audited, tmp_path: Path) -> None:
    secured = audited.secured
    with secured.wire("SSL", *secured.authority.client("carol", unit="Robots")) as wire:
        assert wire.call(ApiKey.METADATA, 12, MetadataRequest(topics=[])).brokers
    event = audited.attempt("SSL", "SUCCESS", principal="User:carol")
    assert event["data"]["requestMetadata"]["connection_id"]
    stranger = Authority(tmp_path).client("mallory", unit="Robots")
    for certificate in ((), stranger):
        with (
            contextlib.suppress(ssl.SSLError, ConnectionError, ConnectionClosed),
            secured.wire("SSL", *certificate) as wire,
        ):
            wire.call(ApiKey.METADATA, 12, MetadataRequest(topics=[]))
    messages = {
        event["data"]["result"]["message"]
        for event in (
            audited.attempt("SSL", "UNAUTHENTICATED", message="peer did not return a certificate"),
            audited.find(lambda event: "its certificate is refused" in json.dumps(event), "a certificate refused"),
        )
    }
    assert len(messages) == 2


def test_bearer_tokens(audited: Audited) -> None:
    good, old = audited.issuer.token("dora"), audited.issuer.token("dora", lifetime_s=-100)
    audited.secrets += [good.encode(), old.encode()]
    for token in (good, old):
        with audited.secured.wire("SASL_SSL") as wire:
            wire.call(ApiKey.SASL_HANDSHAKE, 1, SaslHandshakeRequest(mechanism="OAUTHBEARER"))
            message = f"n,,\x01auth=Bearer {token}\x01\x01".encode()
            wire.call(ApiKey.SASL_AUTHENTICATE, 2, SaslAuthenticateRequest(auth_bytes=message))
    audited.attempt("SASL_SSL/OAUTHBEARER", "SUCCESS", principal="User:dora")
    audited.attempt("SASL_SSL/OAUTHBEARER", "UNAUTHENTICATED", message="the token has expired")


def test_api_keys_and_delegation_tokens(audited: Audited) -> None:
    admin = audited.admin
    account = AlterServiceAccountsRequest(creations=[ServiceAccountCreation(name="app", description=VALUE)])
    assert not admin.call(ApiKey.ALTER_SERVICE_ACCOUNTS, 0, account).results[0].error_code
    key = admin.call(ApiKey.CREATE_API_KEY, 0, CreateApiKeyRequest(owner="app"))
    assert not key.error_code
    audited.secrets.append(key.secret.encode())
    with audited.secured.wire("SASL_SSL") as wire:
        audited.log_in(wire, "PLAIN", key.key_id, key.secret)
    with audited.secured.wire("SASL_SSL") as wire:
        assert attempt(wire, "PLAIN", key.key_id, WRONG).error_code
    assert audited.change("AlterServiceAccounts", "/service-account=app")["data"]["request"]["data"] == {
        "action": "create"
    }
    assert audited.change("CreateApiKey", f"/api-key={key.key_id}")["data"]["request"]["data"] == {"owner": "app"}
    audited.attempt("SASL_SSL/PLAIN", "SUCCESS", principal="User:app", identifier=key.key_id)
    audited.attempt("SASL_SSL/PLAIN", "UNAUTHENTICATED", identifier=key.key_id)
    token = admin.call(ApiKey.CREATE_DELEGATION_TOKEN, 3, CreateDelegationTokenRequest(owner_principal_name=None))
    assert not token.error_code
    audited.secrets.append(bytes(token.hmac))
    audited.change("CreateDelegationToken", f"/delegation-token={token.token_id}")


def test_who_knows_a_secret_is_told_of_though_there_is_no_room(audited: Audited) -> None:
    tenant = Tenant(audited.secured, "full")
    audited.secrets.append(tenant.key[1].encode())
    limit = AlterVirtualClusterRequest(name="full", limits=[AlteredLimit(key="connections", value=1)])
    assert not audited.admin.call(ApiKey.ALTER_VIRTUAL_CLUSTER, 0, limit).error_code
    with tenant.connect(), pytest.raises(ConnectionClosed):
        tenant.connect()

    def came_in() -> bool:
        events = [json.loads(event) for event in audited.bytes()]
        proven = [one for one in events if one["type"].endswith("/authentication") and tenant.kafka_id in one["source"]]
        return [one["data"]["result"]["status"] for one in proven] == ["SUCCESS", "SUCCESS"]

    eventually(came_in, what="both logins")


# ---- decisions ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def robot(audited: Audited) -> Iterator[Wire]:
    """Somebody who may do nothing."""
    credential = ScramCredentialUpsertion(
        name="bob", mechanism=1, iterations=4096, salt=SALT, salted_password=SALTED
    )  # fmt: skip
    request = AlterUserScramCredentialsRequest(upsertions=[credential])
    assert not audited.admin.call(ApiKey.ALTER_USER_SCRAM_CREDENTIALS, 0, request).results[0].error_code
    account = AlterServiceAccountsRequest(creations=[ServiceAccountCreation(name="robot")])
    assert not audited.admin.call(ApiKey.ALTER_SERVICE_ACCOUNTS, 0, account).results[0].error_code
    key = audited.admin.call(ApiKey.CREATE_API_KEY, 0, CreateApiKeyRequest(owner="robot"))
    audited.secrets.append(key.secret.encode())
    wire = audited.log_in(audited.secured.wire("SASL_SSL"), "PLAIN", key.key_id, key.secret)
    yield wire
    wire.close()


def test_denials(audited: Audited, robot: Wire) -> None:
    audited.admin.create_topic("payroll")
    for _ in range(2):
        assert robot.produce("payroll", batch(VALUE.encode())).error_code == ErrorCode.TOPIC_AUTHORIZATION_FAILED
    version, correlation_id = robot.send_fetch("payroll")
    robot.receive(ApiKey.FETCH, version, correlation_id)

    def is_denied(event: dict[str, Any], method: str) -> bool:
        return event["type"].endswith("/authorization") and event["data"]["methodName"] == method

    event = audited.find(lambda event: is_denied(event, "kafka.Produce"), "a denied produce")
    assert event["data"]["authenticationInfo"]["principal"] == "User:robot"
    assert event["data"]["authorizationInfo"] == {
        "granted": False, "operation": "Write", "resourceType": "Topic", "resourceName": "payroll",
        "patternType": "LITERAL",
    }  # fmt: skip
    assert event["subject"].endswith("/topic=payroll")
    assert event["data"]["request"]["client_id"] == "raw-client"
    fetch = audited.find(lambda event: is_denied(event, "kafka.FetchConsumer"), "a denied fetch")
    assert fetch["data"]["request"]["correlation_id"] == str(correlation_id)
    told = [event for event in map(json.loads, audited.bytes()) if is_denied(event, "kafka.Produce")]
    assert len(told) == 2
    assert all(not event["data"]["authorizationInfo"]["granted"] for event in map(json.loads, audited.bytes())
               if event["type"].endswith("/authorization"))  # fmt: skip


def test_a_topic_that_may_not_be_read_is_told_of_once_for_each_fetch(audited: Audited, robot: Wire) -> None:
    audited.admin.create_topic("wages", partitions=5)
    partitions = [fetching.FetchPartition(partition=index, partition_max_bytes=1000) for index in range(5)]
    request = fetching.FetchRequest(
        max_wait_ms=0, min_bytes=0, max_bytes=1000, session_epoch=-1, topics=[fetch_topic("wages", partitions)]
    )  # fmt: skip
    (topic,) = robot.call(ApiKey.FETCH, 12, request).responses
    assert {one.error_code for one in topic.partitions} == {ErrorCode.TOPIC_AUTHORIZATION_FAILED}
    assert len(topic.partitions) == 5
    audited.admin.create_topic("after-wages")
    audited.change("CreateTopics", "/topic=after-wages")
    events = [event for event in map(json.loads, audited.bytes()) if event["subject"].endswith("/topic=wages")]
    assert [event["data"]["methodName"] for event in events].count("kafka.FetchConsumer") == 1


def test_a_denied_change_is_told_as_a_denial(audited: Audited, robot: Wire) -> None:
    request = create_topics.CreateTopicsRequest(topics=[create_topics.CreatableTopic(name="mine")])
    assert robot.call(ApiKey.CREATE_TOPICS, 7, request).topics[0].error_code == ErrorCode.TOPIC_AUTHORIZATION_FAILED
    event = audited.find(lambda event: event["subject"].endswith("/topic=mine"), "a denied creation")
    assert event["data"]["authorizationInfo"]["operation"] == "Create"


def test_the_platform_is_for_its_administrators(audited: Audited, robot: Wire) -> None:
    assert robot.call(ApiKey.ENTER_CLUSTER, 0, EnterClusterRequest(name="platform")).error_code

    def wanted(event: dict[str, Any], kind: str) -> bool:
        return event["type"].endswith(kind) and event["data"]["methodName"] == "kafka.EnterCluster"

    denied = audited.find(lambda event: wanted(event, "/authorization"), "a denied entry")
    assert denied["data"]["authenticationInfo"]["principal"] == "User:robot"
    assert denied["data"]["authorizationInfo"]["granted"] is False
    entered = audited.find(lambda event: wanted(event, "/request"), "an entry")
    assert entered["subject"].endswith("/virtual-cluster=platform")
    assert entered["data"]["authenticationInfo"]["principal"] == f"User:{USER}"
    # The default cluster's log is nowhere in the default cluster.
    assert audited.admin.metadata([TOPIC]).topics[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_log_levels_are_the_platforms(audited: Audited) -> None:
    """Whoever administers a tenant's cluster may configure it, but not the process: no ACL decides that."""
    tenant = Tenant(audited.secured, "levels")
    audited.secrets.append(tenant.key[1].encode())
    rules = [
        create_acls.AclCreation(
            resource_type=ResourceType.CLUSTER, resource_name="kafka-cluster", principal="User:app", host="*",
            operation=operation, permission_type=3,
        )
        for operation in (Operation.ALTER_CONFIGS, Operation.DESCRIBE_CONFIGS)
    ]  # fmt: skip
    with log_in(audited.secured) as admin:
        assert not admin.call(ApiKey.ENTER_CLUSTER, 0, EnterClusterRequest(name="levels")).error_code
        made = admin.call(ApiKey.CREATE_ACLS, 3, create_acls.CreateAclsRequest(creations=rules))
        assert not any(one.error_code for one in made.results)
    config = incremental_alter_configs.AlterableConfig(name="penstock", value="DEBUG")
    level = incremental_alter_configs.AlterConfigsResource(resource_type=8, resource_name="1", configs=[config])
    shown = describe_configs.DescribeConfigsResource(resource_type=8, resource_name="1", configuration_keys=None)
    with tenant.connect() as wire:
        altered = wire.call(
            ApiKey.INCREMENTAL_ALTER_CONFIGS, 1,
            incremental_alter_configs.IncrementalAlterConfigsRequest(resources=[level]),
        )  # fmt: skip
        described = wire.call(
            ApiKey.DESCRIBE_CONFIGS, 4, describe_configs.DescribeConfigsRequest(resources=[shown])
        )  # fmt: skip
    for result in (altered.responses[0], described.results[0]):
        assert result.error_code == ErrorCode.CLUSTER_AUTHORIZATION_FAILED
    for method in ("IncrementalAlterConfigs", "DescribeConfigs"):
        event = audited.find(
            lambda event, method=method: (
                event["source"].endswith(tenant.kafka_id) and event["data"]["methodName"] == f"kafka.{method}"
            ),
            f"a denied {method}",
        )
        assert event["data"]["authorizationInfo"]["granted"] is False
        assert event["data"]["authenticationInfo"]["principal"] == "User:app"


# ---- changes -----------------------------------------------------------------------------------------------------


def test_changes_of_topics(audited: Audited) -> None:
    admin = audited.admin
    topic_id = admin.create_topic("ledger", partitions=2, configs={"retention.ms": "1000"})
    event = audited.change("CreateTopics", "/topic=ledger")
    assert event["data"]["authenticationInfo"] == {"principal": f"User:{USER}"}
    assert event["data"]["result"] == {"status": "SUCCESS", "message": ""}
    assert event["data"]["request"]["data"] == {"configs": ["retention.ms"], "num_partitions": 2}
    config = incremental_alter_configs.AlterableConfig(name="cleanup.policy", value=VALUE)
    resource = incremental_alter_configs.AlterConfigsResource(
        resource_type=2, resource_name="ledger", configs=[config]
    )  # fmt: skip
    request = incremental_alter_configs.IncrementalAlterConfigsRequest(resources=[resource])
    assert admin.call(ApiKey.INCREMENTAL_ALTER_CONFIGS, 1, request).responses[0].error_code
    event = audited.change("IncrementalAlterConfigs", "/topic=ledger")
    assert event["data"]["result"] == {"status": "FAILURE", "message": "INVALID_CONFIG"}
    states = [DeleteTopicState(name=None, topic_id=topic_id)]
    assert not admin.call(ApiKey.DELETE_TOPICS, 6, DeleteTopicsRequest(topics=states)).responses[0].error_code
    assert audited.change("DeleteTopics", "/topic=ledger")["data"]["result"]["status"] == "SUCCESS"


def test_topics_that_nobody_creates_by_a_request_of_its_own(audited: Audited) -> None:
    admin = audited.admin
    admin.metadata(["by-itself"], auto_create=True)
    event = audited.change("CreateTopics", "/topic=by-itself")
    assert event["data"]["authenticationInfo"] == {"principal": f"User:{USER}"}
    assert event["data"]["request"]["data"] == {"num_partitions": 1, "automatic": "auto.create.topics.enable"}
    assert event["data"]["request"]["client_id"] == "raw-client"
    admin.create_topic("lines", partitions=2)
    member = Member(admin, "words", str(uuid.uuid4()), topology("lines"))
    assert not member.beat().error_code
    for name in ("lines-repartition", "lines-changelog"):
        event = audited.change("CreateTopics", f"/topic={name}")
        assert event["data"]["result"] == {"status": "SUCCESS", "message": ""}
        assert event["data"]["request"]["data"] == {"num_partitions": 2, "automatic": "streams group"}
    assert not member.beat(member_epoch=-1).error_code
    admin.metadata(["by-itself"], auto_create=True)  # It is there.
    made = [event for event in map(json.loads, audited.bytes()) if event["subject"].endswith("/topic=by-itself")]
    assert len(made) == 1


def test_changes_of_access(audited: Audited, robot: Wire) -> None:
    rule = create_acls.AclCreation(
        resource_type=ResourceType.GROUP, resource_name="g", principal="User:bob", host="*", operation=Operation.READ,
        permission_type=3,
    )  # fmt: skip
    request = create_acls.CreateAclsRequest(creations=[rule])
    assert not audited.admin.call(ApiKey.CREATE_ACLS, 3, request).results[0].error_code
    event = audited.change("CreateAcls", "/group=g")
    assert event["data"]["request"]["data"] == {
        "principal": "User:bob", "host": "*", "operation": "READ", "permissionType": "ALLOW", "patternType": "LITERAL",
    }  # fmt: skip
    event = audited.change("AlterUserScramCredentials", "/user=bob")
    assert event["data"]["request"]["data"] == {"action": "upsert", "mechanism": "SCRAM-SHA-256"}


def test_the_topic_is_kept_for_a_week_and_counted(audited: Audited) -> None:
    topics = audited.reader.metadata([TOPIC]).topics
    assert len(topics[0].partitions) == 1
    told = audited.bytes()
    page = audited.secured.server.http_text("/metrics")
    counted = {
        line.split('"')[1]: float(line.rsplit(" ", 1)[1])
        for line in page.splitlines()
        if line.startswith("penstock_audit_events_total{")
    }
    assert set(counted) <= {"authentication", "authorization", "request"}
    assert sum(counted.values()) >= len(told) > 0
    lost = [line for line in page.splitlines() if line.startswith("penstock_audit_events_lost_total")]
    assert lost == ['penstock_audit_events_lost_total{cluster="platform"} 0.0']


def test_events_are_there_after_a_restart(audited: Audited) -> None:
    before = len(audited.bytes())
    audited.close()
    assert audited.secured.server.stop() == 0
    audited.secured.server.start()
    audited.connect()
    eventually(lambda: len(audited.bytes()) > before, what="an event of the new login")

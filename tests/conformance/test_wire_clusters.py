"""Virtual clusters on the wire: which cluster a connection is in, and what its clients see."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures.raw_client import ConnectionClosed
from fixtures.secured import PASSWORD, Secured, authenticate
from fixtures.server import Server
from fixtures.tenants import Estate
from fixtures.waiting import eventually
from fixtures.wire import Wire, batch

from penstock.base.acls import Operation, ResourceType
from penstock.cli.kafka import sasl
from penstock.cli.kafka.client_config import Security
from penstock.wire.api_keys import ApiKey as K
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import alter_user_scram_credentials as scram
from penstock.wire.messages import create_acls, metadata
from penstock.wire.messages.alter_cluster_keys import AlterClusterKeysRequest
from penstock.wire.messages.alter_environments import AlterEnvironmentsRequest
from penstock.wire.messages.alter_service_accounts import AlterServiceAccountsRequest, ServiceAccountCreation
from penstock.wire.messages.alter_virtual_cluster import AlteredLimit, AlterVirtualClusterRequest
from penstock.wire.messages.api_versions import ApiVersionsRequest
from penstock.wire.messages.create_api_key import CreateApiKeyRequest
from penstock.wire.messages.create_delegation_token import CreateDelegationTokenRequest
from penstock.wire.messages.create_virtual_cluster import CreateVirtualClusterRequest
from penstock.wire.messages.delete_api_keys import DeleteApiKeysRequest
from penstock.wire.messages.delete_virtual_cluster import DeleteVirtualClusterRequest
from penstock.wire.messages.describe_cluster import DescribeClusterRequest
from penstock.wire.messages.describe_cluster_keys import DescribeClusterKeysRequest
from penstock.wire.messages.describe_delegation_token import DescribeDelegationTokenRequest
from penstock.wire.messages.describe_environments import DescribeEnvironmentsRequest
from penstock.wire.messages.describe_virtual_clusters import DescribeVirtualClustersRequest
from penstock.wire.messages.enter_cluster import EnterClusterRequest
from penstock.wire.messages.list_transactions import ListTransactionsRequest
from penstock.wire.messages.sasl_authenticate import SaslAuthenticateRequest
from penstock.wire.messages.sasl_handshake import SaslHandshakeRequest

NOT_ALLOWED = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
VERSIONS = ApiVersionsRequest(client_software_name="x", client_software_version="1")


def make_cluster(wire: Wire, name: str) -> str:
    """A new cluster's id as Kafka shows it."""
    made = wire.call(K.CREATE_VIRTUAL_CLUSTER, 0, CreateVirtualClusterRequest(name=name, environment="default"))
    assert made.error_code == 0, made.error_message
    return str(made.kafka_cluster_id)


def enter(wire: Wire, name: str) -> int:
    """Go there; the error code."""
    return int(wire.call(K.ENTER_CLUSTER, 0, EnterClusterRequest(name=name)).error_code)


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A broker that asks nobody who they are."""
    server = Server(tmp_path_factory.mktemp("open"))
    server.start()
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A broker with credentials and ACLs, and alice, who administers the platform."""
    settings = {"authorizer.class.name": "", "super.users": "User:alice;User:root"}
    secured = Secured(tmp_path_factory.mktemp("secured"), settings=settings, token_key="the key of tokens here")
    secured.server.start()
    yield secured
    assert secured.server.stop() == 0


def log_in(secured: Secured, user: str, password: str) -> Wire:
    """A connection of this user, by SASL PLAIN."""
    wire = secured.wire("SASL_PLAINTEXT")
    assert wire.call(K.SASL_HANDSHAKE, 1, SaslHandshakeRequest(mechanism="PLAIN")).error_code == 0
    token = b"\0" + user.encode() + b"\0" + password.encode()
    assert wire.call(K.SASL_AUTHENTICATE, 2, SaslAuthenticateRequest(auth_bytes=token)).error_code == 0
    return wire


def set_password(admin: Wire, user: str, password: bytes) -> int:
    """Let a user be proven by it; the error code."""
    salted = hashlib.pbkdf2_hmac("sha256", password, b"salt" * 4, 4096)
    upsertion = scram.ScramCredentialUpsertion(
        name=user, mechanism=1, iterations=4096, salt=b"salt" * 4, salted_password=salted
    )
    request = scram.AlterUserScramCredentialsRequest(upsertions=[upsertion])
    return int(admin.call(K.ALTER_USER_SCRAM_CREDENTIALS, 0, request).results[0].error_code)


def api_key(admin: Wire, account: str) -> tuple[str, str]:
    """A new service account's key in the cluster that the administrator is in."""
    creation = ServiceAccountCreation(name=account)
    admin.call(K.ALTER_SERVICE_ACCOUNTS, 0, AlterServiceAccountsRequest(creations=[creation]))
    key = admin.call(K.CREATE_API_KEY, 0, CreateApiKeyRequest(owner=account))
    assert key.error_code == 0
    return key.key_id, key.secret


def test_only_our_own_command_line_is_told_of_clusters(open_server: Server) -> None:
    with Wire(open_server.bootstrap) as wire:
        told = wire.call(K.API_VERSIONS, 3, ApiVersionsRequest(client_software_name="x", client_software_version="1"))
        assert max(entry.api_key for entry in told.api_keys) < 10_000
        own = ApiVersionsRequest(client_software_name="penstock", client_software_version="1")
        assert K.ENTER_CLUSTER in {entry.api_key for entry in wire.call(K.API_VERSIONS, 3, own).api_keys}


def test_a_connection_moves_with_everything_it_names(open_server: Server) -> None:
    with Wire(open_server.bootstrap) as wire, Wire(open_server.bootstrap) as other:
        kafka_id = make_cluster(wire, "moving")
        before = wire.metadata([]).cluster_id
        topic_id = wire.create_topic("same")
        wire.produce("same", batch(b"outside"))
        assert enter(wire, "moving") == 0
        assert wire.metadata([]).cluster_id == kafka_id != before
        assert wire.call(K.DESCRIBE_CLUSTER, 1, DescribeClusterRequest()).cluster_id == kafka_id
        asked = metadata.MetadataRequest(topics=[metadata.MetadataRequestTopic(topic_id=topic_id, name=None)])
        assert wire.call(K.METADATA, 12, asked).topics[0].error_code == ErrorCode.UNKNOWN_TOPIC_ID
        assert wire.metadata(["same"]).topics[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        wire.create_topic("same")
        # Produce requests alike are read faster, and must not be taken for one that went elsewhere.
        assert wire.produce("same", batch(b"inside")).base_offset == 0
        assert enter(wire, "default") == 0
        assert wire.produce("same", batch(b"outside")).base_offset == 1
        assert other.metadata([]).cluster_id == before
        version = ApiVersionsRequest(
            client_software_name="x", client_software_version="1", cluster_id=kafka_id, node_id=1
        )  # fmt: skip
        assert other.call(K.API_VERSIONS, 5, version).error_code == ErrorCode.REBOOTSTRAP_REQUIRED


def test_where_there_is_no_cluster_of_that_name(open_server: Server) -> None:
    with Wire(open_server.bootstrap) as wire:
        before = wire.metadata([]).cluster_id
        assert enter(wire, "nobody") == ErrorCode.RESOURCE_NOT_FOUND
        assert wire.metadata([]).cluster_id == before
        assert enter(wire, "platform") == 0
        assert enter(wire, "default") == 0


def test_tenants_stay_where_their_keys_put_them(secured: Secured) -> None:
    with log_in(secured, "alice", "a secret, of alice") as admin:
        make_cluster(admin, "acme")
        kafka_id = make_cluster(admin, "tenant")
        assert enter(admin, "tenant") == 0
        admin.create_topic("theirs")  # No ACL says so: who administers the platform may.
        key = api_key(admin, "app")
    with log_in(secured, *key) as tenant:
        assert tenant.metadata([]).cluster_id == kafka_id
        for name in ("acme", "nobody", "tenant", "platform", "default"):
            assert enter(tenant, name) == NOT_ALLOWED
        for request, api in (
            (CreateVirtualClusterRequest(name="acme", environment="default"), K.CREATE_VIRTUAL_CLUSTER),
            (AlterVirtualClusterRequest(name="acme"), K.ALTER_VIRTUAL_CLUSTER),
            (DescribeEnvironmentsRequest(), K.DESCRIBE_ENVIRONMENTS),
            (DescribeClusterKeysRequest(names=None), K.DESCRIBE_CLUSTER_KEYS),
            (AlterClusterKeysRequest(name="tenant", action=3), K.ALTER_CLUSTER_KEYS),
            (AlterClusterKeysRequest(name="nobody", action=0), K.ALTER_CLUSTER_KEYS),
            # Without a role it may not even see its own.
            (DescribeVirtualClustersRequest(names=None), K.DESCRIBE_VIRTUAL_CLUSTERS),
        ):
            assert tenant.call(api, 0, request).error_code == NOT_ALLOWED
        answer = tenant.call(K.ALTER_ENVIRONMENTS, 0, AlterEnvironmentsRequest(creations=["x"], deletions=["default"]))
        assert [result.error_code for result in answer.results] == [NOT_ALLOWED, NOT_ALLOWED]
        assert tenant.metadata([]).cluster_id == kafka_id


def test_connections_end_with_the_key_or_token_they_came_in_by(secured: Secured) -> None:
    with log_in(secured, "alice", PASSWORD) as admin:
        make_cluster(admin, "revoking")
        assert enter(admin, "revoking") == 0
        first, second, own = (api_key(admin, "app") for _ in range(3))
        allow = create_acls.AclCreation(
            resource_type=ResourceType.CLUSTER, resource_name="kafka-cluster", resource_pattern_type=3,
            principal="User:app", host="*", operation=Operation.ALTER, permission_type=3,
        )  # fmt: skip
        allowed = admin.call(K.CREATE_ACLS, 3, create_acls.CreateAclsRequest(creations=[allow]))
        assert allowed.results[0].error_code == 0
        robbed, other, itself = (log_in(secured, *key) for key in (first, second, own))
        token = other.call(K.CREATE_DELEGATION_TOKEN, 3, CreateDelegationTokenRequest())
        assert token.error_code == 0
        worker = by_token(secured, token, "revoking")
        begun = begin_by_token(secured, token, "revoking")

        def delete(wire: Wire, *key_ids: str) -> list[int]:
            answer = wire.call(K.DELETE_API_KEYS, 0, DeleteApiKeysRequest(key_ids=list(key_ids)))
            return [result.error_code for result in answer.results]

        assert delete(admin, first[0]) == [0]
        assert robbed.is_closed_by_broker()
        assert delete(itself, own[0]) == [0], "who deletes its own key is answered"
        with pytest.raises(ConnectionClosed):
            itself.metadata([])
        for wire in (other, worker):
            assert wire.metadata([]).cluster_id
        removal = AlterServiceAccountsRequest(deletions=["app"])
        assert admin.call(K.ALTER_SERVICE_ACCOUNTS, 0, removal).results[0].error_code == 0
        for wire in (other, worker, begun):
            assert wire.is_closed_by_broker()
        assert admin.metadata([]).cluster_id


def by_token(secured: Secured, token: Any, cluster: str) -> Wire:
    """A connection by a delegation token."""
    wire = secured.wire("SASL_PLAINTEXT")
    secret = base64.b64encode(bytes(token.hmac)).decode()
    user = f"{token.token_id}@{cluster}"
    security = Security(mechanism="SCRAM-SHA-256", user=user, password=secret, is_token_auth=True)
    assert authenticate(wire, security).error_code == 0
    return wire


def begin_by_token(secured: Secured, token: Any, cluster: str) -> Wire:
    """A connection that has yet to prove that it has the token."""
    wire = secured.wire("SASL_PLAINTEXT")
    wire.call(K.SASL_HANDSHAKE, 1, SaslHandshakeRequest(mechanism="SCRAM-SHA-256"))
    first = f"n,,n={token.token_id}@{cluster},r=abc,tokenauth=true".encode()
    assert not wire.call(K.SASL_AUTHENTICATE, 2, SaslAuthenticateRequest(auth_bytes=first)).error_code
    return wire


def test_who_is_called_like_an_administrator_is_none(secured: Secured) -> None:
    with log_in(secured, "alice", "a secret, of alice") as admin:
        make_cluster(admin, "sly")
        assert enter(admin, "sly") == 0
        key = api_key(admin, "alice")
    with log_in(secured, *key) as tenant:
        assert enter(tenant, "default") == NOT_ALLOWED
        assert tenant.metadata(None).topics == []


def test_no_acl_makes_an_administrator_of_the_platform(secured: Secured) -> None:
    with log_in(secured, "alice", PASSWORD) as admin:
        assert set_password(admin, "root", b"of root") == 0
        root_key, _ = api_key(admin, "root")
        assert set_password(admin, "head", b"of head") == 0
        allowed = [
            create_acls.AclCreation(
                resource_type=kind, resource_name=name, principal="User:head", host="*", operation=Operation.ALL,
                permission_type=3,
            )
            for kind, name in ((ResourceType.CLUSTER, "kafka-cluster"), (ResourceType.USER, "*"))
        ]  # fmt: skip
        answer = admin.call(K.CREATE_ACLS, 3, create_acls.CreateAclsRequest(creations=allowed))
        assert [result.error_code for result in answer.results] == [0, 0]
    asked = CreateDelegationTokenRequest(owner_principal_type="User", owner_principal_name="root")
    with log_in(secured, "root", "of root") as root:
        made = root.call(K.CREATE_DELEGATION_TOKEN, 3, CreateDelegationTokenRequest())
        assert made.error_code == 0
    with log_in(secured, "head", "of head") as head:
        assert set_password(head, "hand", b"of hand") == 0
        api_key(head, "robot")
        for name in ("root", "alice"):
            assert set_password(head, name, b"of head") == NOT_ALLOWED
        deletion = scram.ScramCredentialDeletion(name="root", mechanism=1)
        answer = head.call(
            K.ALTER_USER_SCRAM_CREDENTIALS, 0, scram.AlterUserScramCredentialsRequest(deletions=[deletion])
        )
        assert answer.results[0].error_code == NOT_ALLOWED
        account = ServiceAccountCreation(name="alice")
        answer = head.call(
            K.ALTER_SERVICE_ACCOUNTS, 0, AlterServiceAccountsRequest(creations=[account], deletions=["root"])
        )
        assert [result.error_code for result in answer.results] == [NOT_ALLOWED] * 2
        assert head.call(K.CREATE_API_KEY, 0, CreateApiKeyRequest(owner="root")).error_code == NOT_ALLOWED
        answer = head.call(K.DELETE_API_KEYS, 0, DeleteApiKeysRequest(key_ids=[root_key]))
        assert answer.results[0].error_code == NOT_ALLOWED
        refused = head.call(K.CREATE_DELEGATION_TOKEN, 3, asked)
        assert refused.error_code == ErrorCode.DELEGATION_TOKEN_AUTHORIZATION_FAILED
        asked.owner_principal_name = "hand"
        assert head.call(K.CREATE_DELEGATION_TOKEN, 3, asked).error_code == 0
        shown = head.call(K.DESCRIBE_DELEGATION_TOKEN, 3, DescribeDelegationTokenRequest(owners=None))
        assert [token.principal_name for token in shown.tokens] == ["hand"], "a token is shown with its secret"
    with log_in(secured, "root", "of root") as root:
        assert enter(root, "platform") == 0
    with log_in(secured, "alice", PASSWORD) as admin:
        assert enter(admin, "default") == 0
        answer = admin.call(K.DELETE_API_KEYS, 0, DeleteApiKeysRequest(key_ids=[root_key]))
        assert answer.results[0].error_code == 0


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
def test_a_user_says_by_its_name_where_it_is(secured: Secured, mechanism: str) -> None:
    cluster = f"named-{mechanism.lower()}"
    with log_in(secured, "alice", "a secret, of alice") as admin:
        kafka_id, default_id = make_cluster(admin, cluster), admin.metadata([]).cluster_id
        # Of the cluster it says is only who is in it; nobody is kept out by a user of the same name elsewhere.
        for name in (f"bob@{cluster}", f"carol@{cluster}", "dave@example.com"):
            assert set_password(admin, name, b"of another") == 0
        assert enter(admin, cluster) == 0
        assert set_password(admin, "bob", b"of bob") == 0
    assert proves(secured, mechanism, f"bob@{cluster}", "of bob") == kafka_id
    for name in (f"carol@{cluster}", "dave@example.com"):
        assert proves(secured, mechanism, name, "of another") == default_id, name
    for name, password in (
        (f"bob@{cluster}", "wrong"), (f"bob@{cluster}", "of another"), ("bob", "of bob"),
        ("bob@nobody", "of bob"), (f"alice@{cluster}", PASSWORD),
        (f"@{cluster}", "of bob"),
    ):  # fmt: skip
        assert proves(secured, mechanism, name, password) is None, name


def test_the_server_name_of_tls_says_where_a_client_is(secured: Secured) -> None:
    with log_in(secured, "alice", "a secret, of alice") as admin:
        kafka_id, default_id = make_cluster(admin, "by-name"), admin.metadata([]).cluster_id
        assert enter(admin, "by-name") == 0
        key_id, secret = api_key(admin, "app")
    for mechanism, name, user, password, expected in (
        ("PLAIN", "by-name.kafka.test", key_id, secret, kafka_id),
        ("PLAIN", "BY-NAME.kafka.test", key_id, secret, kafka_id),
        ("PLAIN", "localhost", key_id, secret, kafka_id),
        ("PLAIN", "default.kafka.test", key_id, secret, None),
        ("PLAIN", "nobody.kafka.test", key_id, secret, None),
        ("SCRAM-SHA-256", "default.kafka.test", "alice", PASSWORD, default_id),
        ("SCRAM-SHA-256", "by-name.kafka.test", "alice", PASSWORD, None),
        ("SCRAM-SHA-256", "by-name.kafka.test", "alice@default", PASSWORD, None),
        ("SCRAM-SHA-256", "nobody.kafka.test", "alice", PASSWORD, None),
    ):
        assert proves(secured, mechanism, user, password, server_name=name) == expected, (name, user)


def proves(secured: Secured, mechanism: str, user: str, password: str, *, server_name: str = "") -> str | None:
    """The cluster that somebody gets into, if they do."""
    with secured.wire("SASL_PLAINTEXT") if not server_name else by_name(secured, server_name) as wire:
        wire.call(K.SASL_HANDSHAKE, 1, SaslHandshakeRequest(mechanism=mechanism))
        exchange = sasl.messages(Security(mechanism=mechanism, user=user, password=password), "abcdefgh")
        token = next(exchange)
        while True:
            answer = wire.call(K.SASL_AUTHENTICATE, 2, SaslAuthenticateRequest(auth_bytes=token))
            if answer.error_code:
                assert answer.error_code == ErrorCode.SASL_AUTHENTICATION_FAILED
                return None
            try:
                token = exchange.send(bytes(answer.auth_bytes))
            except StopIteration:
                found = wire.metadata([])
                # They come back by the name that said where they are.
                expected = server_name.lower() if server_name.lower().endswith(".kafka.test") else "127.0.0.1"
                assert found.brokers[0].host == expected
                return str(found.cluster_id)


def test_strangers_use_up_nothing_of_a_cluster_they_name(secured: Secured) -> None:
    one_a_second = [AlteredLimit(key="request_rate", value=1.0)]
    with log_in(secured, "alice", PASSWORD) as admin:
        kafka_id = make_cluster(admin, "busy")
        assert enter(admin, "busy") == 0
        key = api_key(admin, "app")
    with log_in(secured, "alice", PASSWORD) as admin:
        limits = AlterVirtualClusterRequest(name="busy", limits=one_a_second)
        assert admin.call(K.ALTER_VIRTUAL_CLUSTER, 0, limits).error_code == 0
    for _ in range(2):
        with by_name(secured, "busy.kafka.test") as stranger:
            waits = [stranger.call(K.API_VERSIONS, 4, VERSIONS).throttle_time_ms for _ in range(4)]
        assert waits == [0] * 4
    with log_in(secured, *key) as tenant:
        waits = [tenant.call(K.API_VERSIONS, 4, VERSIONS).throttle_time_ms for _ in range(2)]
        assert waits[0] == 0
        assert waits[1] > 0, "whoever has proven that they are of it is counted"
        assert tenant.metadata([]).cluster_id == kafka_id


def test_strangers_do_not_learn_which_clusters_there_are(secured: Secured) -> None:
    with log_in(secured, "alice", PASSWORD) as admin:
        kafka_id = make_cluster(admin, "hidden")
        assert enter(admin, "hidden") == 0
        key = api_key(admin, "app")

    def versions(wire: Wire, cluster_id: str) -> Any:
        asked = ApiVersionsRequest(
            client_software_name="x", client_software_version="1", cluster_id=cluster_id, node_id=1
        )  # fmt: skip
        return wire.call(K.API_VERSIONS, 5, asked)

    for cluster_id in ("", "A" * 22, kafka_id):
        with by_name(secured, "hidden.kafka.test") as there, by_name(secured, "nobody.kafka.test") as nowhere:
            told = versions(there, cluster_id)
            assert told.error_code == 0
            assert told == versions(nowhere, cluster_id)
    with secured.wire("SASL_PLAINTEXT") as wire:
        assert versions(wire, kafka_id).error_code == 0, "its key will open that one"
    with log_in(secured, *key) as tenant:
        assert versions(tenant, kafka_id).error_code == 0
        assert versions(tenant, "").error_code == ErrorCode.REBOOTSTRAP_REQUIRED


def by_name(secured: Secured, server_name: str) -> Wire:
    """A connection by TLS that asks for a server of that name."""
    return secured.named("SASL_SSL", server_name)


def test_without_credentials_nobody_gets_anywhere_else_once_others_need_them(secured: Secured) -> None:
    with Wire(secured.plaintext) as wire:
        assert enter(wire, "platform") == NOT_ALLOWED


@pytest.fixture
def long_sessions(tmp_path: Path) -> Iterator[Secured]:
    """A broker whose sessions end unless they are prolonged."""
    secured = Secured(tmp_path, settings={"super.users": "User:alice", "connections.max.reauth.ms": "60000"})
    secured.server.start()
    yield secured
    assert secured.server.stop() == 0


def test_prolonging_a_session_leaves_it_where_it_is(long_sessions: Secured) -> None:
    with log_in(long_sessions, "alice", "a secret, of alice") as admin:
        kafka_id = make_cluster(admin, "long")
        assert enter(admin, "long") == 0
        assert admin.call(K.SASL_HANDSHAKE, 1, SaslHandshakeRequest(mechanism="PLAIN")).error_code == 0
        token = b"\0alice\0a secret, of alice"
        assert admin.call(K.SASL_AUTHENTICATE, 2, SaslAuthenticateRequest(auth_bytes=token)).error_code == 0
        assert admin.metadata([]).cluster_id == kafka_id
    with pytest.raises(ConnectionClosed), Wire(long_sessions.at("SASL_PLAINTEXT")) as wire:
        enter(wire, "long")  # Not before it has proven who it is.


def test_deleting_a_cluster_waits_for_no_transaction(open_server: Server) -> None:
    with Wire(open_server.bootstrap) as admin:
        for name in ("leaves-it-open", "goes-too"):
            make_cluster(admin, name)
        estate = Estate(lambda: inside(open_server, "leaves-it-open"))
        wire = estate.wires[0]
        wire.create_topic(estate.things["topic"])
        estate.transaction(wire)  # It may take ten minutes.
        for name in ("leaves-it-open", "goes-too"):
            answer = admin.call(K.DELETE_VIRTUAL_CLUSTER, 0, DeleteVirtualClusterRequest(name=name))
            assert answer.error_code == 0, answer.error_message
        eventually(lambda: not names_of(admin) & {"leaves-it-open", "goes-too"}, what="the clusters being gone")
        make_cluster(admin, "leaves-it-open")
        with inside(open_server, "leaves-it-open") as anew:
            listed = anew.call(K.LIST_TRANSACTIONS, 0, ListTransactionsRequest())
            assert (listed.error_code, listed.transaction_states) == (0, [])
        estate.close()


def inside(server: Server, name: str) -> Wire:
    """A connection in a cluster."""
    wire = Wire(server.bootstrap)
    assert enter(wire, name) == 0
    return wire


def names_of(wire: Wire) -> set[str]:
    """The names of all clusters, those that go too."""
    answer = wire.call(K.DESCRIBE_VIRTUAL_CLUSTERS, 0, DescribeVirtualClustersRequest(names=None))
    return {cluster.name for cluster in answer.clusters}

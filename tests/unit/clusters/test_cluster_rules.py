"""What virtual clusters and environments may be called and have."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.base.errors import InvalidRequest
from penstock.clusters import transitions
from penstock.clusters.failures import AlreadyExists, Forbidden, NotFound
from penstock.clusters.limits import changed_limits
from penstock.clusters.model import Cluster, Environment


def a_cluster(cluster_id: int, name: str, **more: Any) -> Cluster:
    return Cluster(cluster_id=cluster_id, name=name, kafka_id="k", created_ms=1, **more)


CLUSTERS = {
    found.name: found
    for found in (
        a_cluster(0, "platform"), a_cluster(1, "default"), a_cluster(2, "acme", environment="prod"),
        a_cluster(3, "going", deleted_ms=5),
    )
}  # fmt: skip
ENVIRONMENTS = {name: Environment(name=name, created_ms=1) for name in ("default", "prod", "empty")}


@pytest.mark.parametrize("name", ["a", "acme", "a-1", "7", "x" * 63])
def test_a_name_is_one_of_a_host(name: str) -> None:
    transitions.check_name(name)


@pytest.mark.parametrize("name", ["", "-a", "a-", "Acme", "a.b", "a_b", "a b", "ä", "x" * 64, "a\n", "a\0"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(InvalidRequest):
        transitions.check_name(name)


@pytest.mark.parametrize(
    ("name", "environment", "failure"),
    [
        ("new", "prod", None),
        ("acme", "prod", AlreadyExists),
        ("platform", "default", AlreadyExists),
        ("going", "default", AlreadyExists),  # Its name is free once all of it has gone.
        ("new", "nowhere", NotFound),
        ("New", "prod", InvalidRequest),
    ],
)
def test_a_new_cluster(name: str, environment: str, failure: type[InvalidRequest] | None) -> None:
    if failure is None:
        transitions.check_new(CLUSTERS, ENVIRONMENTS, name, environment)
    else:
        with pytest.raises(failure):
            transitions.check_new(CLUSTERS, ENVIRONMENTS, name, environment)


def test_a_cluster_that_goes_is_not_reached() -> None:
    assert transitions.found(CLUSTERS, "acme").cluster_id == 2
    with pytest.raises(Forbidden):
        transitions.found(CLUSTERS, "going")
    with pytest.raises(NotFound):
        transitions.found(CLUSTERS, "nobody")


@pytest.mark.parametrize(
    ("name", "failure"), [("empty", None), ("prod", Forbidden), ("default", Forbidden), ("nowhere", NotFound)]
)
def test_an_environment_goes_once_it_is_empty(name: str, failure: type[InvalidRequest] | None) -> None:
    if failure is None:
        transitions.check_deletable_environment(ENVIRONMENTS, CLUSTERS.values(), name)
    else:
        with pytest.raises(failure):
            transitions.check_deletable_environment(ENVIRONMENTS, CLUSTERS.values(), name)


def test_limits_are_set_and_taken_away() -> None:
    assert changed_limits({}, {"partitions": 10.0}) == {"partitions": 10.0}
    assert changed_limits({"partitions": 10.0}, {"partitions": 0.0}) == {"partitions": 0.0}
    assert changed_limits({"partitions": 10.0}, {"partitions": None}) == {}
    assert changed_limits({}, {"partitions": None}) == {}


@pytest.mark.parametrize("value", [-1.0, 0.5, float("nan"), float("inf"), 2.0**60])
def test_a_limit_is_a_whole_number(value: float) -> None:
    with pytest.raises(InvalidRequest):
        changed_limits({}, {"partitions": value})


def test_a_limit_that_there_is_not() -> None:
    with pytest.raises(InvalidRequest, match="partitions"):
        changed_limits({}, {"happiness": 1.0})


@pytest.mark.parametrize("key", ["bytes_in_rate", "bytes_out_rate", "request_rate", "connection_rate"])
def test_a_rate_limit_is_at_least_one(key: str) -> None:
    """Nothing would ever pass a rate of 0; a count of 0 does make sense."""
    with pytest.raises(InvalidRequest, match="from 1"):
        changed_limits({}, {key: 0.0})
    assert changed_limits({}, {key: 1.0, "connections": 0.0}) == {key: 1.0, "connections": 0.0}


def test_permanent_clusters_cannot_be_deleted() -> None:
    transitions.check_deletable(CLUSTERS["acme"])
    for name in ("platform", "default"):
        with pytest.raises(Forbidden, match="part of the deployment"):
            transitions.check_deletable(CLUSTERS[name])

"""What groups go by: the broker's settings, what was altered in a virtual cluster, and what they have of their own."""

from __future__ import annotations

import pytest

from penstock.agent.settings import SETTINGS
from penstock.base.errors import InvalidRequest
from penstock.base.settings import LiveSettings
from penstock.groups.settings import GroupSettings, LiveGroupSettings

KINDS = ("consumer", "share", "streams")


def of_kind(settings: GroupSettings, kind: str):
    return getattr(settings, kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("key", "attribute", "text", "counts"),
    [
        ("session.timeout.ms", "session_timeout_ms", "50000", 50_000),
        ("session.timeout.ms", "session_timeout_ms", "70000", 60_000),
        ("session.timeout.ms", "session_timeout_ms", "100", 45_000),
        ("heartbeat.interval.ms", "heartbeat_interval_ms", "20000", 15_000),
        ("assignment.interval.ms", "assignment_interval_ms", "16000", 15_000),
        ("assignment.interval.ms", "assignment_interval_ms", "0", 0),
    ],
)
def test_own_configuration_counts_within_the_bounds(
    kind: str, key: str, attribute: str, text: str, counts: int
) -> None:
    """It was within them when it was set; the bounds may be others since a restart."""
    settings = of_kind(GroupSettings.of(SETTINGS.started_with({})), kind)
    mine = settings.of_group({f"{kind}.{key}": text})
    assert getattr(mine, attribute) == counts
    assert settings.of_group({"another.key": text}) is settings


def test_bounds_are_the_brokers() -> None:
    broker = SETTINGS.started_with({"group.consumer.max.session.timeout.ms": "90000"})
    settings = GroupSettings.of(broker).consumer
    assert settings.of_group({"consumer.session.timeout.ms": "90001"}).session_timeout_ms == 90_000
    standby = GroupSettings.of(SETTINGS.started_with({})).streams.of_group({"streams.num.standby.replicas": "7"})
    assert standby.num_standby_replicas == 2


@pytest.mark.parametrize("kind", KINDS)
def test_pauses_between_assignments_can_be_altered_while_running(kind: str) -> None:
    name = f"group.{kind}.assignment.interval.ms"
    live = LiveSettings(SETTINGS.started_with({}))
    start = GroupSettings.of(live.start)
    settings = LiveGroupSettings(live, start)
    assert settings.of(1) is start
    live.replace(1, live.preview(1, cluster_wide={name: "300"}))
    assert of_kind(settings.of(1), kind).assignment_interval_ms == 300
    assert settings.of(1) is settings.of(1)
    assert settings.of(2) is start
    first_unknown = live.preview(1, cluster_wide={name: "20000"})
    with pytest.raises(InvalidRequest):
        first_unknown.check_altered([name])
    live.replace(1, first_unknown)  # It was altered when its bounds were wider.
    assert of_kind(settings.of(1), kind).assignment_interval_ms == 15_000
    live.forget(1)
    assert settings.of(1) is start


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["assignment.interval.ms", "heartbeat.interval.ms", "session.timeout.ms"])
def test_settings_beyond_their_bounds_prevent_a_start(kind: str, name: str) -> None:
    first_unknown = int(SETTINGS.started_with({}).whole(f"group.{kind}.max.{name}")) + 1
    with pytest.raises(InvalidRequest, match=f"group.{kind}.{name} must be between"):
        SETTINGS.started_with({f"group.{kind}.{name}": str(first_unknown)})


@pytest.mark.parametrize("kind", KINDS)
def test_heartbeats_come_before_sessions_end(kind: str) -> None:
    times = {f"group.{kind}.{limit}session.timeout.ms": "5000" for limit in ("min.", "")}
    with pytest.raises(InvalidRequest, match=f"group.{kind}.heartbeat.interval.ms must be less"):
        SETTINGS.started_with(times)

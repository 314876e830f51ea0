"""Settings of share groups, and how many are cached."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from penstock.agent.settings import SETTINGS
from penstock.share import settings
from penstock.share.settings import ShareConfigs


class Configs:
    """What was set, by group."""

    def __init__(self) -> None:
        self.values: dict[str, Mapping[str, str]] = {}

    def overrides(self, cluster_id: int, kind: object, name: str) -> Mapping[str, str]:
        return self.values.get(name, {})


def test_settings_are_read_anew_when_they_change_and_kept_for_so_many_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "MAX_KNOWN", 10)
    configs = Configs()
    known = ShareConfigs(configs, SETTINGS.started_with({}))
    assert known.of(1, "a") is known.of(1, "b"), "the broker's own"
    for number in range(25):
        configs.values[f"g{number}"] = {"errors.deadletterqueue.topic.name": f"dlq.{number}"}
        first = known.of(1, f"g{number}")
        assert (first.dead_letter_topic, first.limits.dead_letters) == (f"dlq.{number}", True)
        assert known.of(1, f"g{number}") is first
        assert len(known._known) <= 10
    configs.values["g24"] = {"share.record.lock.duration.ms": "20000"}
    assert known.of(1, "g24").limits.lock_ms == 20_000
    assert known.of(1, "g24").dead_letter_topic == ""

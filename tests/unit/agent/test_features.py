"""UpdateFeatures: what is in force is accepted, anything else refused with Kafka's code."""

from __future__ import annotations

import pytest

from penstock.agent.api_versions import FEATURES, features_of
from penstock.agent.features import SAFE_DOWNGRADE, UNSAFE_DOWNGRADE, UPGRADE, FeatureHandlers
from penstock.base.context import RequestContext
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.update_features import FeatureUpdateKey, UpdateFeaturesRequest

NAME = "transaction.version"
NOW = FEATURES[NAME][1]


async def update(version: int, **asked: object):
    request = UpdateFeaturesRequest(feature_updates=[FeatureUpdateKey(**{"feature": NAME, **asked})])
    features = FeatureHandlers(lambda: features_of({key: None for _, _, key in FEATURES.values()}))
    return await features.update_features(RequestContext(api_version=version), request)


@pytest.mark.parametrize("version", range(3))
@pytest.mark.parametrize("kind", [UPGRADE, SAFE_DOWNGRADE, UNSAFE_DOWNGRADE])
async def test_the_level_in_force_is_accepted(version: int, kind: int) -> None:
    response = await update(version, max_version_level=NOW, upgrade_type=kind)
    assert response.error_code == ErrorCode.NONE
    assert [(one.feature, one.error_code) for one in response.results] == ([(NAME, 0)] if version < 2 else [])


@pytest.mark.parametrize(
    "asked",
    [
        {"max_version_level": NOW + 1},
        {"max_version_level": NOW - 1},
        {"max_version_level": NOW - 1, "upgrade_type": SAFE_DOWNGRADE},
        {"max_version_level": -1, "upgrade_type": UNSAFE_DOWNGRADE},
        {"max_version_level": NOW, "upgrade_type": 0},
        {"max_version_level": 1, "feature": "no.such.feature"},
    ],
)
async def test_any_other_level_is_refused(asked: dict[str, object]) -> None:
    for version in (1, 2):
        response = await update(version, **asked)
        assert response.error_code == ErrorCode.INVALID_UPDATE_VERSION
        assert "failed for all features" in response.error_message


async def test_the_oldest_version_says_only_whether_a_downgrade_is_allowed() -> None:
    refused = await update(0, max_version_level=NOW - 1)
    assert "setting the upgrade type" in refused.error_message
    assert "keeps it at" in (await update(0, max_version_level=NOW - 1, allow_downgrade=True)).error_message

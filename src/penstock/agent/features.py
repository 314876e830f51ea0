"""UpdateFeatures: the levels of features are those of the release, and there is nothing to switch."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from penstock.base.context import RequestContext
from penstock.base.cooperative import map_each, yield_if_due
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.update_features import (
    FeatureUpdateKey,
    UpdatableFeatureResult,
    UpdateFeaturesRequest,
    UpdateFeaturesResponse,
)

UPGRADE, SAFE_DOWNGRADE, UNSAFE_DOWNGRADE = 1, 2, 3
TYPES_SINCE = 1
"""Before, a request said only whether a downgrade is allowed."""
RESULTS_UNTIL = 1
"""Later, there is one result for all features."""


class FeatureHandlers:
    """Kafka's API for the levels of features."""

    def __init__(self, features: Callable[[], Mapping[str, tuple[int, int]]]) -> None:
        self._features = features

    async def update_features(self, context: RequestContext, request: UpdateFeaturesRequest) -> UpdateFeaturesResponse:
        """UpdateFeatures, key 57, v0-2. v1: types of changes, trying only. v2: one result for all features. A level
        that is in force already is accepted; any other is refused by 95, because levels come with releases."""
        features = self._features()
        for number, update in enumerate(request.feature_updates):
            await yield_if_due(number)
            complaint = _complaint(update, context.api_version, features)
            if complaint is not None:
                return UpdateFeaturesResponse(
                    error_code=ErrorCode.INVALID_UPDATE_VERSION,
                    error_message="The update failed for all features since the following feature had an error: "
                    f"Invalid update version {update.max_version_level} for feature {update.feature}. {complaint}",
                )
        results = await map_each(
            request.feature_updates,
            lambda update: UpdatableFeatureResult(feature=update.feature, error_message=None),
        )
        return UpdateFeaturesResponse(
            error_message=None, results=results if context.api_version <= RESULTS_UNTIL else []
        )


def _complaint(update: FeatureUpdateKey, version: int, features: Mapping[str, tuple[int, int]]) -> str | None:
    """Why a feature cannot be brought to a level, in Kafka's order; None where it is there."""
    kind, level = update.upgrade_type, update.max_version_level
    if version < TYPES_SINCE:
        kind = SAFE_DOWNGRADE if update.allow_downgrade else UPGRADE
    if kind not in (UPGRADE, SAFE_DOWNGRADE, UNSAFE_DOWNGRADE):
        return "The controller does not support the given upgrade type."
    if level < 0:
        return "A feature version cannot be less than 0."
    if update.feature not in features:
        return "There is no such feature."
    lowest, current = features[update.feature]
    if not lowest <= level <= current:
        return f"Levels {lowest} to {current} are supported."
    if level < current and kind == UPGRADE:
        return (
            "Can't downgrade the version of this feature without setting the upgrade type to either safe or unsafe"
            " downgrade."
        )
    return None if level == current else f"This release keeps it at {current}."

"""Settings of quotas, under Kafka's names."""

from __future__ import annotations

from penstock.base.config_values import INT
from penstock.base.dataclasses import dataclass
from penstock.base.settings import BrokerSettings, declare, setting
from penstock.quotas.meters import SampleWindows

SETTINGS = declare(
    setting("quota.window.num", INT, "11", "How many samples client quotas are averaged over.", at_least=1),
    setting("quota.window.size.seconds", INT, "1", "How long each sample of client quotas is.", at_least=1),
    setting(
        "controller.quota.window.num", INT, "11", at_least=1,
        doc="How many samples' worth of topic changes a controller mutation quota allows in one burst.",
    ),
    setting(
        "controller.quota.window.size.seconds", INT, "1", at_least=1,
        doc="How long each sample of controller mutation quotas is.",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaSettings:
    """The windows that rates are measured over."""

    windows: SampleWindows = SampleWindows()
    """`quota.window.num`, `quota.window.size.seconds`"""
    mutation_windows: SampleWindows = SampleWindows()
    """`controller.quota.window.num`, `controller.quota.window.size.seconds`"""

    @classmethod
    def of(cls, broker: BrokerSettings) -> QuotaSettings:
        """From the settings of a broker."""
        return cls(
            windows=SampleWindows(
                samples=broker.whole("quota.window.num"), window_ms=broker.whole("quota.window.size.seconds") * 1000
            ),
            mutation_windows=SampleWindows(
                samples=broker.whole("controller.quota.window.num"),
                window_ms=broker.whole("controller.quota.window.size.seconds") * 1000,
            ),
        )

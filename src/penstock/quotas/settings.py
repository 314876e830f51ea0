"""Settings of quotas, under Kafka's names."""

from __future__ import annotations

from penstock.base.dataclasses import dataclass
from penstock.log.settings import BrokerSettings
from penstock.quotas.meters import Windows


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaSettings:
    """The windows that rates are measured over."""

    windows: Windows = Windows()
    """`quota.window.num`, `quota.window.size.seconds`"""
    mutation_windows: Windows = Windows()
    """`controller.quota.window.num`, `controller.quota.window.size.seconds`"""

    @classmethod
    def of(cls, broker: BrokerSettings) -> QuotaSettings:
        """From the settings of a broker."""
        return cls(
            windows=Windows(
                samples=broker.whole("quota.window.num"), window_ms=broker.whole("quota.window.size.seconds") * 1000
            ),
            mutation_windows=Windows(
                samples=broker.whole("controller.quota.window.num"),
                window_ms=broker.whole("controller.quota.window.size.seconds") * 1000,
            ),
        )

"""Settings of transactions, under Kafka's names."""

from __future__ import annotations

from penstock.base.config_values import INT
from penstock.base.dataclasses import dataclass
from penstock.base.settings import BrokerSettings, declare, setting

SETTINGS = declare(
    setting(
        "transaction.max.timeout.ms", INT, "900000", at_least=1,
        doc="The longest transaction time-out that a producer may ask for.",
    ),
    setting(
        "transactional.id.expiration.ms", INT, "604800000", at_least=1,
        doc="How long an unused transactional id is remembered.",
    ),
    setting(
        "transaction.abort.timed.out.transaction.cleanup.interval.ms", INT, "10000", at_least=1,
        doc="How often transactions are checked for time-out.",
    ),
    setting(
        "transaction.remove.expired.transaction.cleanup.interval.ms", INT, "3600000", at_least=1,
        doc="How often transactional ids are checked for expiry.",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionSettings:
    """What transactions go by."""

    max_timeout_ms: int = 900_000
    """`transaction.max.timeout.ms`"""
    id_expiration_ms: int = 604_800_000
    """`transactional.id.expiration.ms`"""
    timeout_check_interval_ms: int = 10_000
    """`transaction.abort.timed.out.transaction.cleanup.interval.ms`"""
    id_check_interval_ms: int = 3_600_000
    """`transaction.remove.expired.transaction.cleanup.interval.ms`"""

    @classmethod
    def of(cls, broker: BrokerSettings) -> TransactionSettings:
        """What the settings of a broker say about transactions."""
        return cls(
            max_timeout_ms=broker.whole("transaction.max.timeout.ms"),
            id_expiration_ms=broker.whole("transactional.id.expiration.ms"),
            timeout_check_interval_ms=broker.whole("transaction.abort.timed.out.transaction.cleanup.interval.ms"),
            id_check_interval_ms=broker.whole("transaction.remove.expired.transaction.cleanup.interval.ms"),
        )

"""Settings of classic groups, under Kafka's names and with its defaults where not said otherwise."""

from __future__ import annotations

from dataclasses import dataclass, field

from penstock.groups.share.model import ShareGroupSettings
from penstock.log.settings import BrokerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSettings:
    """Plain values; see the documentation of each."""

    min_session_timeout_ms: int = 6_000
    """`group.min.session.timeout.ms`"""
    max_session_timeout_ms: int = 1_800_000
    """`group.max.session.timeout.ms`"""
    max_size: int = 2_147_483_647
    """`group.max.size`"""
    initial_rebalance_delay_ms: int = 0
    """`group.initial.rebalance.delay.ms`; Kafka's default is 3000. 0 waits only as long as members keep arriving."""
    new_member_join_timeout_ms: int = 300_000
    """How long a member that does not know its id yet may stay in a join without being heard of."""
    offset_metadata_max_size: int = 4_096
    """`offset.metadata.max.bytes`"""
    offsets_retention_ms: int = 7 * 24 * 3_600_000
    """`offsets.retention.minutes`, in ms"""
    join_quiet_ms: int = 20
    """With a delay of 0: how long the first join waits for more."""
    join_quiet_max_ms: int = 250
    """With a delay of 0: the longest pause between arrivals that is waited for."""
    join_window_max_ms: int = 3_000
    """With a delay of 0: the longest that a first generation is held up by arriving members."""

    share: ShareGroupSettings = field(default_factory=ShareGroupSettings)

    @classmethod
    def of(cls, broker: BrokerSettings) -> GroupSettings:
        """What the settings of a broker say about groups."""
        return cls(
            min_session_timeout_ms=broker.group_min_session_timeout_ms,
            max_session_timeout_ms=broker.group_max_session_timeout_ms,
            max_size=broker.group_max_size,
            initial_rebalance_delay_ms=broker.group_initial_rebalance_delay_ms,
            offset_metadata_max_size=broker.offset_metadata_max_bytes,
            offsets_retention_ms=broker.offsets_retention_ms,
            share=ShareGroupSettings.of(broker),
        )

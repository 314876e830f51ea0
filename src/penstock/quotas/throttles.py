"""Measuring clients against their limits: the throttle time of each request.

Clients without a limit are not measured. `Throttles` caches which limits apply to which client, so that a request costs
one look-up; the meters themselves are shared by everybody who shares a limit, and survive a change of it. When there
are many, those that were idle for all their windows are dropped, which changes nothing. There are no timers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from hashlib import sha256
from typing import Final

from penstock.base.clock import Clock
from penstock.base.context import DEFAULT_CLUSTER_ID, RequestContext
from penstock.base.twins import twinned
from penstock.clusters.limits import LimitKey, Limits
from penstock.log.quota import UNLIMITED, Allowance
from penstock.log.refusals import Refused
from penstock.quotas.cluster_rates import ClusterRateLimits, RateLimit
from penstock.quotas.meters import MAX_THROTTLE_MS, Rate, TokenBucket
from penstock.quotas.model import IP, Entity, QuotaKey, QuotaTable, applied_limit, connection_rate_of
from penstock.quotas.settings import QuotaSettings
from penstock.quotas.transitions import canonical_address
from penstock.wire.error_codes import ErrorCode

KEPT_MIN = 1024
"""How many meters are kept before idle ones are dropped."""
CLIENTS_MAX = 16_384
"""How many clients' limits are cached."""
METERS_MAX = 65_536
"""With so many meters in use, new clients share one, so that inventing client ids does not evade quotas. Clients of a
virtual cluster that has fewer meters than its share are exempt: others cannot take its meters."""
MAX_CLIENT_ID_LENGTH = 512
"""Longer client ids have no limits of their own, and are cached by their hash."""
_OTHERS = "\0"
_PRINCIPAL_TYPE: Final = "User:"
_RATES = (LimitKey.BYTES_IN_RATE, LimitKey.BYTES_OUT_RATE, LimitKey.REQUEST_RATE)
"""Keys of a virtual cluster's limits that throttle clients."""


class Meter:
    """A rate with its limit."""

    __slots__ = ("limit", "rate", "safe_total")

    def __init__(self, rate: Rate, limit: float) -> None:
        self.rate, self.limit = rate, limit
        self.safe_total = rate.safe_total(limit)
        """Up to this total nobody is throttled, and no average has to be computed."""

    def charge(self, amount: float, now_ms: int) -> int:
        """Count an amount; the throttle time."""
        rate = self.rate
        rate.record(amount, now_ms)
        return 0 if rate.total <= self.safe_total else rate.excess_ms(self.limit, now_ms)


class ClientMeters:
    """The meters that apply to one client; None where there is no limit."""

    __slots__ = ("cluster_limits", "fetch", "mutation_bucket", "mutation_limit", "produce", "request_time")

    def __init__(self) -> None:
        self.produce: Meter | None = None
        self.fetch: Meter | None = None
        self.request_time: Meter | None = None
        self.mutation_bucket: TokenBucket | None = None
        self.mutation_limit = 0.0
        """The limit of the bucket."""
        self.cluster_limits: ClusterRateLimits | None = None
        """The limits of the virtual cluster as a whole."""


@twinned
def count_within_limits(client: ClientMeters, size_bytes: int, now_ms: float) -> bool:
    """The fast path: count a produce request that is clearly within its client's limits, as nearly all are; False, with
    nothing counted, if averages have to be computed."""
    produce, request_time = client.produce, client.request_time
    if client.cluster_limits is not None or (
        request_time is not None and request_time.rate.total > request_time.safe_total
    ):
        return False
    if produce is not None:
        rate = produce.rate
        if now_ms >= rate.sample_ends_ms or rate.total + size_bytes > produce.safe_total:
            return False
        rate.record(size_bytes, now_ms)
    return True


@twinned
def count_time(client: ClientMeters, since_ms: float, now_ms: float) -> None:
    """Count the time of a client's produce request, which affects the next one."""
    if client.request_time is not None:
        client.request_time.rate.record((now_ms - since_ms) / 10, now_ms)


class Throttles:
    """The meters of one agent's clients.

    Times are milliseconds of the clock's `monotonic`.
    """

    def __init__(self, *, clock: Clock, settings: QuotaSettings) -> None:
        self._clock, self._settings = clock, settings
        self.version = 0
        """Incremented when other meters may apply to a client than before: cached ones must be looked up again."""
        self._tables: dict[int, QuotaTable] = {}
        self._limited: dict[int, Counter[bool]] = {}
        """How many addresses, and how many other entities, have limits, by virtual cluster."""
        self._clients: dict[tuple[int, str, str | None], ClientMeters] = {}
        self._rates: dict[tuple[str, int, str, str], Rate] = {}
        self._buckets: dict[tuple[int, str, str], TokenBucket] = {}
        self._cluster_limits: dict[int, ClusterRateLimits] = {}
        self._meters_of = Counter[int]()
        """Number of meters by virtual cluster."""
        self._drop_idle_above, self._dropped_ms = KEPT_MIN, 0
        self.limits_clients = False
        """Whether any client, user or default has a limit."""
        self.limits_addresses = False
        self.throttled: dict[str, int] = dict.fromkeys((*QuotaKey, *_RATES), 0)
        """How often clients were throttled, by quota."""

    def set_quotas(self, cluster_id: int, table: QuotaTable, changed: Collection[Entity] | None = None) -> None:
        """Put new limits of a virtual cluster in force: of these entities, or of all. Only the changed ones are
        processed, because a cluster may have a hundred thousand."""
        before = self._tables.get(cluster_id, {})
        if changed is None:
            before, changed, self._limited[cluster_id] = {}, table, Counter()
        limited = self._limited.setdefault(cluster_id, Counter())
        for who in changed:
            limited[_is_address(who)] += (who in table) - (who in before)
        self._tables[cluster_id] = table
        self._refresh_limits()

    def set_cluster_limits(self, cluster_id: int, limits: Limits) -> None:
        """Put new limits of a virtual cluster as a whole in force."""
        cluster_limits = ClusterRateLimits(limits, self._cluster_limits.get(cluster_id))
        if cluster_limits.limits_clients or cluster_limits.connections is not None:
            self._cluster_limits[cluster_id] = cluster_limits
        else:
            self._cluster_limits.pop(cluster_id, None)
        self._refresh_limits()

    def cluster_limits(self, cluster_id: int) -> ClusterRateLimits | None:
        """The meters of a virtual cluster, if any of its rates is limited."""
        return self._cluster_limits.get(cluster_id)

    def drop_cluster(self, cluster_id: int) -> None:
        """Drop the quotas and limits of a deleted virtual cluster."""
        self._tables.pop(cluster_id, None)
        self._limited.pop(cluster_id, None)
        self._cluster_limits.pop(cluster_id, None)
        self._refresh_limits()

    def _drop_cached_clients(self) -> None:
        self.version += 1
        self._clients.clear()

    def _refresh_limits(self) -> None:
        self._drop_cached_clients()
        self.limits_addresses = any(limited[True] for limited in self._limited.values())
        self.limits_clients = any(limited[False] for limited in self._limited.values()) or any(
            cluster_limits.limits_clients for cluster_limits in self._cluster_limits.values()
        )

    # ---- requests -------------------------------------------------------------------------------------------------

    def on_request(self, client: ClientMeters, size_bytes: int) -> int:
        """A request arrived; how many milliseconds to mute its connection."""
        cluster_limits = client.cluster_limits
        return 0 if cluster_limits is None else self._throttle_arrival(cluster_limits, size_bytes, self._now_ms())

    def _throttle_arrival(self, cluster_limits: ClusterRateLimits, size_bytes: int, now_ms: int) -> int:
        return max(
            self._charge_rate_limit(LimitKey.REQUEST_RATE, cluster_limits.requests, 1, now_ms),
            self._charge_rate_limit(LimitKey.BYTES_IN_RATE, cluster_limits.bytes_in, size_bytes, now_ms),
        )

    def _charge_rate_limit(self, key: str, rate_limit: RateLimit | None, amount: float, now_ms: int) -> int:
        if rate_limit is None or not amount:
            return 0
        return self._count_throttled(key, min(rate_limit.charge(amount, now_ms), MAX_THROTTLE_MS))

    def on_internal_write(self, cluster_id: int, size_bytes: int) -> int:
        """Something was written for a virtual cluster that none of its clients sent; the throttle time for writing more
        of it. It counts against its clients' limits as well."""
        cluster_limits = self.cluster_limits(cluster_id)
        if cluster_limits is None:
            return 0
        return self._charge_rate_limit(LimitKey.BYTES_IN_RATE, cluster_limits.bytes_in, size_bytes, self._now_ms())

    def on_produce(self, client: ClientMeters, size_bytes: int, now_ms: float) -> int:
        """The same for a produce request that arrived at that time, including the time that earlier ones took."""
        if count_within_limits(client, size_bytes, now_ms):
            return 0
        throttle_ms = 0
        if client.cluster_limits is not None:
            throttle_ms = self._throttle_arrival(client.cluster_limits, size_bytes, int(now_ms))
        meter = client.produce
        if meter is not None:
            meter.rate.record(size_bytes, now_ms)
            if meter.rate.total > meter.safe_total:
                own_ms = self._count_throttled(QuotaKey.PRODUCER_BYTE_RATE, meter.rate.excess_ms(meter.limit, now_ms))
                throttle_ms = max(throttle_ms, own_ms)
        meter = client.request_time
        if meter is not None and meter.rate.total > meter.safe_total:
            throttle_ms = max(throttle_ms, self._request_time_throttle_ms(meter.rate.excess_ms(meter.limit, now_ms)))
        return throttle_ms

    def on_time(self, client: ClientMeters, spent_s: float) -> int:
        """A client's request took so long; the throttle time in milliseconds."""
        meter = client.request_time
        return 0 if meter is None else self._request_time_throttle_ms(meter.charge(spent_s * 100, self._now_ms()))

    def _request_time_throttle_ms(self, owed_ms: int) -> int:
        # One window at most, as in Kafka: excess request time is not a debt to be paid back.
        return self._count_throttled(QuotaKey.REQUEST_PERCENTAGE, min(owed_ms, self._settings.windows.window_ms))

    def fetch_room(self, context: RequestContext) -> int | None:
        """The largest fetch response that can be within the limits; None: no limit."""
        client = self.client(context)
        meter, room = client.fetch, None
        if meter is not None:
            room = max(1, int(meter.safe_total))
        if client.cluster_limits is not None and client.cluster_limits.bytes_out is not None:
            # What a second allows for all clients of the cluster, so that nobody waits longer while it is sent.
            second = max(1, int(client.cluster_limits.bytes_out.limit))
            room = second if room is None else min(room, second)
        return room

    def on_fetch(self, context: RequestContext, size_bytes: int) -> tuple[int, bool]:
        """Account for a fetch response of this size: the throttle time, and whether it may be sent all the same.

        What exceeds the limit is not sent, and not counted, as in Kafka. But a single batch that by itself exceeds what
        a small limit allows for all windows is sent when nothing else was, and made up for afterwards: Kafka's
        consumers would never get past it.
        """
        client = self.client(context)
        meter, now_ms = client.fetch, self._now_ms()
        cluster_ms, may_go = self._throttle_cluster_fetch(client, size_bytes, now_ms)
        if not may_go or meter is None or not size_bytes:
            return cluster_ms, may_go
        rate = meter.rate
        if rate.total + size_bytes <= meter.safe_total:
            rate.record(size_bytes, now_ms)
            return cluster_ms, True
        is_first = rate.is_idle(now_ms)
        throttle_ms = self._count_throttled(QuotaKey.CONSUMER_BYTE_RATE, meter.charge(size_bytes, now_ms))
        if throttle_ms and not is_first:
            rate.record(-size_bytes, now_ms)
        return max(throttle_ms, cluster_ms), is_first or not throttle_ms

    def _throttle_cluster_fetch(self, client: ClientMeters, size_bytes: int, now_ms: int) -> tuple[int, bool]:
        """The same for the virtual cluster as a whole: nothing is sent while it owes anything, and what is sent may
        make it owe."""
        rate_limit = None if client.cluster_limits is None else client.cluster_limits.bytes_out
        if rate_limit is None or not size_bytes:
            return 0, True
        owed_ms = rate_limit.owed_ms(now_ms)
        if owed_ms:
            return self._count_throttled(LimitKey.BYTES_OUT_RATE, owed_ms), False
        return self._count_throttled(LimitKey.BYTES_OUT_RATE, rate_limit.charge(size_bytes, now_ms)), True

    def on_sent(self, context: RequestContext, size_bytes: int) -> int:
        """Records were sent that could not be held back; the throttle time."""
        client, now_ms = self.client(context), self._now_ms()
        cluster_ms = 0
        if client.cluster_limits is not None:
            cluster_ms = self._charge_rate_limit(
                LimitKey.BYTES_OUT_RATE, client.cluster_limits.bytes_out, size_bytes, now_ms
            )
        meter = client.fetch
        if meter is None or not size_bytes:
            return cluster_ms
        return max(cluster_ms, self._count_throttled(QuotaKey.CONSUMER_BYTE_RATE, meter.charge(size_bytes, now_ms)))

    def allowance(self, context: RequestContext, *, strict: bool) -> Allowance:
        """The allowance of one request for partition mutations."""
        client = self.client(context)
        if client.mutation_bucket is None:
            return UNLIMITED
        return _MutationAllowance(self, client.mutation_bucket, client.mutation_limit, strict=strict)

    def client(self, context: RequestContext) -> ClientMeters:
        """The meters that apply to the sender of a request."""
        client_id = context.client_id
        if client_id is not None and len(client_id) > MAX_CLIENT_ID_LENGTH:
            client_id = sha256(client_id.encode()).hexdigest()
        key = (context.cluster_id, context.principal, client_id)
        client = self._clients.get(key)
        if client is None:
            self._drop_idle()
            if len(self._clients) >= CLIENTS_MAX:
                self._drop_cached_clients()  # Looked up again when needed.
            client = self._clients[key] = self._look_up(*key)
        return client

    def _look_up(self, cluster_id: int, principal: str, client_id: str | None) -> ClientMeters:
        client, table = ClientMeters(), self._tables.get(cluster_id)
        client.cluster_limits = self._cluster_limits.get(cluster_id)
        if not table:
            return client
        user = principal.removeprefix(_PRINCIPAL_TYPE)
        client.produce = self._meter(table, QuotaKey.PRODUCER_BYTE_RATE, cluster_id, user, client_id)
        client.fetch = self._meter(table, QuotaKey.CONSUMER_BYTE_RATE, cluster_id, user, client_id)
        client.request_time = self._meter(table, QuotaKey.REQUEST_PERCENTAGE, cluster_id, user, client_id)
        limit = applied_limit(table, QuotaKey.CONTROLLER_MUTATION_RATE, user, client_id)
        if limit is not None:
            client.mutation_bucket = self._bucket((cluster_id, limit.user, limit.client_id))
            client.mutation_limit = limit.value
        return client

    def _meter(self, table: QuotaTable, key: str, cluster_id: int, user: str, client_id: str | None) -> Meter | None:
        limit = applied_limit(table, key, user, client_id)
        if limit is None:
            return None
        return Meter(self._rate((key, cluster_id, limit.user, limit.client_id)), limit.value)

    def _rate(self, key: tuple[str, int, str, str]) -> Rate:
        if key not in self._rates and not self._has_room(key[1]):
            key = (key[0], key[1], _OTHERS, _OTHERS)
        rate = self._rates.get(key)
        if rate is None:
            rate = self._rates[key] = Rate(self._settings.windows)
            self._meters_of[key[1]] += 1
        return rate

    def _bucket(self, key: tuple[int, str, str]) -> TokenBucket:
        if key not in self._buckets and not self._has_room(key[0]):
            key = (key[0], _OTHERS, _OTHERS)
        mutation_bucket = self._buckets.get(key)
        if mutation_bucket is None:
            mutation_bucket = self._buckets[key] = TokenBucket(self._settings.mutation_windows)
            self._meters_of[key[0]] += 1
        return mutation_bucket

    def _has_room(self, cluster_id: int) -> bool:
        """Whether a virtual cluster may have one more meter."""
        own = self._meters_of[cluster_id]
        return self.meter_count < METERS_MAX or own * (len(self._meters_of) + 1) < METERS_MAX

    def _drop_idle(self) -> None:
        """Drop idle meters when there are many; before any look-up, so that no client keeps one that others cannot find
        any more."""
        now_ms = self._now_ms()
        if self.meter_count < self._drop_idle_above or now_ms - self._dropped_ms < self._settings.windows.window_ms:
            return
        self._dropped_ms = now_ms
        self._drop_cached_clients()
        self._rates = {key: rate for key, rate in self._rates.items() if not rate.is_idle(now_ms)}
        self._buckets = {
            key: mutation_bucket
            for key, mutation_bucket in self._buckets.items()
            if not mutation_bucket.is_idle(now_ms)
        }
        self._meters_of = Counter([*(key[1] for key in self._rates), *(key[0] for key in self._buckets)])
        self._drop_idle_above = min(max(KEPT_MIN, 2 * self.meter_count), METERS_MAX)

    # ---- connections ----------------------------------------------------------------------------------------------

    def on_connection(self, address: str, cluster_id: int = DEFAULT_CLUSTER_ID) -> int:
        """An address connects; how long to delay before refusing it, 0 if it may connect.

        The virtual cluster of a connection is not known yet: addresses are limited by the deployment's own cluster.
        """
        table = self._tables.get(cluster_id)
        if not table or not self.limits_addresses:
            return 0
        try:
            address = canonical_address(address)
        except Refused:
            return 0  # Not a network connection.
        limit = connection_rate_of(table, address)
        if limit is None:
            return 0
        self._drop_idle()
        now_ms = self._now_ms()
        rate = self._rate((QuotaKey.CONNECTION_CREATION_RATE, cluster_id, address, ""))
        rate.record(1, now_ms)
        throttle_ms = min(rate.excess_ms(limit, now_ms), self._settings.windows.window_ms)
        if throttle_ms:
            rate.record(-1, now_ms)
        return self._count_throttled(QuotaKey.CONNECTION_CREATION_RATE, throttle_ms)

    # ---- counts -------------------------------------------------------------------------------------------------

    @property
    def meter_count(self) -> int:
        """How many meters there are."""
        return len(self._rates) + len(self._buckets)

    def _count_throttled(self, key: str, throttle_ms: int) -> int:
        if throttle_ms:
            self.throttled[key] += 1
        return throttle_ms

    def _now_ms(self) -> int:
        return int(self._clock.monotonic() * 1000)


def _is_address(who: Entity) -> bool:
    return who[0][0] == IP


class _MutationAllowance:
    """The allowance of one request for partition mutations.

    Strict: nothing more once credits are owed; the error contains the throttle time. Not strict: anything, throttled
    afterwards; for versions of requests that do not know that error.
    """

    def __init__(self, throttles: Throttles, mutation_bucket: TokenBucket, limit: float, *, strict: bool) -> None:
        self._throttles, self._bucket, self._limit, self._strict = throttles, mutation_bucket, limit, strict
        self._until_ms = 0

    def spend(self, partitions: int) -> None:
        """Account for mutations of so many partitions; raise `Refused` if they are not allowed now."""
        now_ms = self._throttles._now_ms()
        owed_ms = self._bucket.excess_ms(self._limit, now_ms) if self._strict else 0
        if owed_ms:
            self._until_ms = now_ms + owed_ms
            raise Refused(ErrorCode.THROTTLING_QUOTA_EXCEEDED, "The throttling quota has been exceeded.")
        self._bucket.record(partitions, self._limit, now_ms)
        if not self._strict:
            self._until_ms = now_ms + self._bucket.excess_ms(self._limit, now_ms)

    def throttle_time_ms(self) -> int:
        """The throttle time that is left."""
        left_ms = max(0, min(self._until_ms - self._throttles._now_ms(), MAX_THROTTLE_MS))
        return self._throttles._count_throttled(QuotaKey.CONTROLLER_MUTATION_RATE, left_ms)

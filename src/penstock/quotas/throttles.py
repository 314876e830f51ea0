"""What clients have done lately, compared with their limits: how long each is made to wait.

Clients without a limit are not measured. `Throttles` remembers which limits apply to which client, so that a request
costs one look-up; the meters themselves are shared by everybody who shares a limit, and outlive a change of it. When
there are many, those that nobody has used for as long as their windows reach are dropped, which changes nothing. No
timer runs.
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
from penstock.quotas.meters import MAX_THROTTLE_MS, Rate, TokenBucket
from penstock.quotas.model import IP, Entity, QuotaKey, Table, connection_rate_of, limit_of
from penstock.quotas.settings import QuotaSettings
from penstock.quotas.tenants import Spending, Tenant
from penstock.quotas.transitions import canonical_address
from penstock.wire.error_codes import ErrorCode

KEPT_MIN = 1024
"""How many meters are kept before it is looked for some to drop."""
CLIENTS_MAX = 16_384
"""How many clients' limits are remembered."""
METERS_MAX = 65_536
"""With so many in use, clients that come new share one: whoever makes up client ids gains nothing by it. But those of a
virtual cluster that has fewer than its part do not, so that nobody loses anything by it either."""
LONG_NAME = 512
"""Longer client ids have no limits of their own, and are remembered by what they hash to."""
_OTHERS = "\0"
_PRINCIPAL_TYPE: Final = "User:"
_RATES = (LimitKey.BYTES_IN_RATE, LimitKey.BYTES_OUT_RATE, LimitKey.REQUEST_RATE)
"""Limits of virtual clusters that make clients wait."""


class Meter:
    """A rate that somebody may not exceed."""

    __slots__ = ("harmless", "limit", "rate")

    def __init__(self, rate: Rate, limit: float) -> None:
        self.rate, self.limit = rate, limit
        self.harmless = rate.harmless(limit)
        """With no more than this nobody waits, and it does not have to be reckoned."""

    def charge(self, amount: float, now_ms: int) -> int:
        """Count an amount; how long to wait for it."""
        rate = self.rate
        rate.record(amount, now_ms)
        return 0 if rate.total <= self.harmless else rate.excess_ms(self.limit, now_ms)


class Client:
    """The meters that count for one client; None where there is no limit."""

    __slots__ = ("bucket", "fetch", "mutations", "produce", "tenant", "time")

    def __init__(self) -> None:
        self.produce: Meter | None = None
        self.fetch: Meter | None = None
        self.time: Meter | None = None
        self.bucket: TokenBucket | None = None
        self.mutations = 0.0
        """The limit of the bucket."""
        self.tenant: Tenant | None = None
        """What counts for everybody in the same virtual cluster."""


@twinned
def count_within_limits(client: Client, size_bytes: int, now_ms: float) -> bool:
    """Count a produce request that keeps well within its client's limits; False, and nothing is counted, if more is to
    be looked at. Nearly always nobody has to wait: two comparisons tell."""
    produce, time = client.produce, client.time
    if client.tenant is not None or (time is not None and time.rate.total > time.harmless):
        return False
    if produce is not None:
        rate = produce.rate
        if now_ms >= rate.until_ms or rate.total + size_bytes > produce.harmless:
            return False
        rate.last_ms = now_ms
        rate.total += size_bytes
    return True


@twinned
def count_time(client: Client, since_ms: float, now_ms: float) -> None:
    """A client's produce request took from then until now, which counts for the next one."""
    if client.time is None:
        return
    rate, spent = client.time.rate, (now_ms - since_ms) / 10
    if now_ms < rate.until_ms:
        rate.last_ms = now_ms
        rate.total += spent
    else:
        rate.record(spent, now_ms)


class Throttles:
    """The measures of one agent's clients.

    Times are milliseconds of the clock's `monotonic`.
    """

    def __init__(self, *, clock: Clock, settings: QuotaSettings) -> None:
        self._clock, self._settings = clock, settings
        self.version = 0
        """Goes up when another `Client` may be found for somebody than was before: the one that was has to be looked up
        again."""
        self._tables: dict[int, Table] = {}
        self._limited: dict[int, Counter[bool]] = {}
        """How many addresses, and how many others, have limits, by virtual cluster."""
        self._clients: dict[tuple[int, str, str | None], Client] = {}
        self._rates: dict[tuple[str, int, str, str], Rate] = {}
        self._buckets: dict[tuple[int, str, str], TokenBucket] = {}
        self._tenants: dict[int, Tenant] = {}
        self._meters_of = Counter[int]()
        """How many there are, by virtual cluster."""
        self._keep, self._dropped_ms = KEPT_MIN, 0
        self.limits_clients = False
        """Whether any client, user or default has a limit."""
        self.limits_addresses = False
        self.throttled: dict[str, int] = dict.fromkeys((*QuotaKey, *_RATES), 0)
        """How often somebody was made to wait, by what was limited."""

    def replace(self, cluster_id: int, table: Table, changed: Collection[Entity] | None = None) -> None:
        """From now on these limits count in a virtual cluster: others than before for these entities, or for any. Only
        those are looked at, for one may have a hundred thousand."""
        before = self._tables.get(cluster_id, {})
        if changed is None:
            before, changed, self._limited[cluster_id] = {}, table, Counter()
        limited = self._limited.setdefault(cluster_id, Counter())
        for who in changed:
            limited[_is_address(who)] += (who in table) - (who in before)
        self._tables[cluster_id] = table
        self._look_again()

    def limit(self, cluster_id: int, limits: Limits) -> None:
        """From now on these limits count for a virtual cluster as a whole."""
        tenant = Tenant(limits, self._tenants.get(cluster_id))
        if tenant.limits_clients or tenant.connections is not None:
            self._tenants[cluster_id] = tenant
        else:
            self._tenants.pop(cluster_id, None)
        self._look_again()

    def tenant(self, cluster_id: int) -> Tenant | None:
        """What a virtual cluster has done lately, if any of its rates is limited."""
        return self._tenants.get(cluster_id)

    def forget(self, cluster_id: int) -> None:
        """A virtual cluster is gone."""
        self._tables.pop(cluster_id, None)
        self._limited.pop(cluster_id, None)
        self._tenants.pop(cluster_id, None)
        self._look_again()

    def _forget_clients(self) -> None:
        self.version += 1
        self._clients.clear()

    def _look_again(self) -> None:
        self._forget_clients()
        self.limits_addresses = any(limited[True] for limited in self._limited.values())
        self.limits_clients = any(limited[False] for limited in self._limited.values()) or any(
            tenant.limits_clients for tenant in self._tenants.values()
        )

    # ---- requests -------------------------------------------------------------------------------------------------

    def on_request(self, client: Client, size_bytes: int) -> int:
        """A request arrived; for how many milliseconds nothing more is to be read from its connection."""
        tenant = client.tenant
        return 0 if tenant is None else self._of_arrival(tenant, size_bytes, self._now_ms())

    def _of_arrival(self, tenant: Tenant, size_bytes: int, now_ms: int) -> int:
        return max(
            self._charged(LimitKey.REQUEST_RATE, tenant.requests, 1, now_ms),
            self._charged(LimitKey.BYTES_IN_RATE, tenant.bytes_in, size_bytes, now_ms),
        )

    def _charged(self, key: str, spending: Spending | None, amount: float, now_ms: int) -> int:
        if spending is None or not amount:
            return 0
        return self._noted(key, min(spending.charge(amount, now_ms), MAX_THROTTLE_MS))

    def on_own_write(self, cluster_id: int, size_bytes: int) -> int:
        """Something was written for a virtual cluster that none of its clients has sent; for how many milliseconds to
        write no more of it. Its clients wait as well, as for what one of them has sent."""
        tenant = self.tenant(cluster_id)
        if tenant is None:
            return 0
        return self._charged(LimitKey.BYTES_IN_RATE, tenant.bytes_in, size_bytes, self._now_ms())

    def on_produce(self, client: Client, size_bytes: int, now_ms: float) -> int:
        """The same for a produce request that came at that time, and for the time that those before it took."""
        if count_within_limits(client, size_bytes, now_ms):
            return 0
        throttle_ms = 0
        if client.tenant is not None:
            throttle_ms = self._of_arrival(client.tenant, size_bytes, int(now_ms))
        meter = client.produce
        if meter is not None:
            meter.rate.record(size_bytes, now_ms)
            if meter.rate.total > meter.harmless:
                own_ms = self._noted(QuotaKey.PRODUCER_BYTE_RATE, meter.rate.excess_ms(meter.limit, now_ms))
                throttle_ms = max(throttle_ms, own_ms)
        meter = client.time
        if meter is not None and meter.rate.total > meter.harmless:
            throttle_ms = max(throttle_ms, self._waited_for_time(meter.rate.excess_ms(meter.limit, now_ms)))
        return throttle_ms

    def on_time(self, client: Client, spent_s: float) -> int:
        """A client's request took so long; for how many milliseconds to wait."""
        meter = client.time
        return 0 if meter is None else self._waited_for_time(meter.charge(spent_s * 100, self._now_ms()))

    def _waited_for_time(self, owed_ms: int) -> int:
        # One window at most, as in Kafka: time is not a debt that has to be paid back.
        return self._noted(QuotaKey.REQUEST_PERCENTAGE, min(owed_ms, self._settings.windows.window_ms))

    def fetch_room(self, context: RequestContext) -> int | None:
        """How many bytes a fetch can be answered with that are not bound to be too many; None for any number."""
        client = self.client(context)
        meter, room = client.fetch, None
        if meter is not None:
            room = max(1, int(meter.harmless))
        if client.tenant is not None and client.tenant.bytes_out is not None:
            # What a second allows for all of them: nobody else waits for longer while it is sent.
            second = max(1, int(client.tenant.bytes_out.limit))
            room = second if room is None else min(room, second)
        return room

    def on_fetch(self, context: RequestContext, size_bytes: int) -> tuple[int, bool]:
        """A fetch would be answered with so much: for how long to wait, and whether the answer may go all the same.

        What is too much is not sent, and not counted, as in Kafka. But what is too much by itself, a single batch
        larger than a small limit allows for all windows together, is sent when nothing else was, and paid for after:
        Kafka's consumers would not get past it.
        """
        client = self.client(context)
        meter, now_ms = client.fetch, self._now_ms()
        tenant_ms, may_go = self._of_tenant(client, size_bytes, now_ms)
        if not may_go or meter is None or not size_bytes:
            return tenant_ms, may_go
        rate = meter.rate
        if rate.total + size_bytes <= meter.harmless:
            rate.record(size_bytes, now_ms)
            return tenant_ms, True
        alone = rate.is_idle(now_ms)
        throttle_ms = self._noted(QuotaKey.CONSUMER_BYTE_RATE, meter.charge(size_bytes, now_ms))
        if throttle_ms and not alone:
            rate.record(-size_bytes, now_ms)
        return max(throttle_ms, tenant_ms), alone or not throttle_ms

    def _of_tenant(self, client: Client, size_bytes: int, now_ms: int) -> tuple[int, bool]:
        """The same for the virtual cluster as a whole: nothing is sent while it owes something, and what is sent may
        make it owe."""
        spending = None if client.tenant is None else client.tenant.bytes_out
        if spending is None or not size_bytes:
            return 0, True
        owed_ms = spending.owed_ms(now_ms)
        if owed_ms:
            return self._noted(LimitKey.BYTES_OUT_RATE, owed_ms), False
        return self._noted(LimitKey.BYTES_OUT_RATE, spending.charge(size_bytes, now_ms)), True

    def on_sent(self, context: RequestContext, size_bytes: int) -> int:
        """Records were sent that could not be held back; for how long to wait."""
        client, now_ms = self.client(context), self._now_ms()
        tenant_ms = 0
        if client.tenant is not None:
            tenant_ms = self._charged(LimitKey.BYTES_OUT_RATE, client.tenant.bytes_out, size_bytes, now_ms)
        meter = client.fetch
        if meter is None or not size_bytes:
            return tenant_ms
        return max(tenant_ms, self._noted(QuotaKey.CONSUMER_BYTE_RATE, meter.charge(size_bytes, now_ms)))

    def allowance(self, context: RequestContext, *, strict: bool) -> Allowance:
        """How much a client may change with one request."""
        client = self.client(context)
        if client.bucket is None:
            return UNLIMITED
        return _Mutations(self, client.bucket, client.mutations, strict=strict)

    def client(self, context: RequestContext) -> Client:
        """What counts for whoever sent a request."""
        client_id = context.client_id
        if client_id is not None and len(client_id) > LONG_NAME:
            client_id = sha256(client_id.encode()).hexdigest()
        key = (context.cluster_id, context.principal, client_id)
        client = self._clients.get(key)
        if client is None:
            self._drop_idle()
            if len(self._clients) >= CLIENTS_MAX:
                self._forget_clients()  # Found again when they are needed.
            client = self._clients[key] = self._find(*key)
        return client

    def _find(self, cluster_id: int, principal: str, client_id: str | None) -> Client:
        client, table = Client(), self._tables.get(cluster_id)
        client.tenant = self._tenants.get(cluster_id)
        if not table:
            return client
        user = principal.removeprefix(_PRINCIPAL_TYPE)
        client.produce = self._meter(table, QuotaKey.PRODUCER_BYTE_RATE, cluster_id, user, client_id)
        client.fetch = self._meter(table, QuotaKey.CONSUMER_BYTE_RATE, cluster_id, user, client_id)
        client.time = self._meter(table, QuotaKey.REQUEST_PERCENTAGE, cluster_id, user, client_id)
        limit = limit_of(table, QuotaKey.CONTROLLER_MUTATION_RATE, user, client_id)
        if limit is not None:
            client.bucket = self._bucket((cluster_id, limit.user, limit.client_id))
            client.mutations = limit.value
        return client

    def _meter(self, table: Table, key: str, cluster_id: int, user: str, client_id: str | None) -> Meter | None:
        limit = limit_of(table, key, user, client_id)
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
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = TokenBucket(self._settings.mutation_windows)
            self._meters_of[key[0]] += 1
        return bucket

    def _has_room(self, cluster_id: int) -> bool:
        """Whether there may be one more meter of a virtual cluster."""
        own = self._meters_of[cluster_id]
        return self.meter_count < METERS_MAX or own * (len(self._meters_of) + 1) < METERS_MAX

    def _drop_idle(self) -> None:
        """Drop meters that are as good as new, when there are many; before any is looked up, so that nobody is left
        with one that others do not find any more."""
        now_ms = self._now_ms()
        if self.meter_count < self._keep or now_ms - self._dropped_ms < self._settings.windows.window_ms:
            return
        self._dropped_ms = now_ms
        self._forget_clients()
        self._rates = {key: rate for key, rate in self._rates.items() if not rate.is_idle(now_ms)}
        self._buckets = {key: bucket for key, bucket in self._buckets.items() if not bucket.is_idle(now_ms)}
        self._meters_of = Counter([*(key[1] for key in self._rates), *(key[0] for key in self._buckets)])
        self._keep = min(max(KEPT_MIN, 2 * self.meter_count), METERS_MAX)

    # ---- connections ----------------------------------------------------------------------------------------------

    def on_connection(self, address: str, cluster_id: int = DEFAULT_CLUSTER_ID) -> int:
        """An address connects; for how long to let it wait before it is refused, 0 if it may.

        Whose a connection is turns out later: addresses are limited by the deployment's own cluster.
        """
        table = self._tables.get(cluster_id)
        if not table or not self.limits_addresses:
            return 0
        try:
            address = canonical_address(address)
        except Refused:
            return 0  # Not over a network.
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
        return self._noted(QuotaKey.CONNECTION_CREATION_RATE, throttle_ms)

    # ---- what there is --------------------------------------------------------------------------------------------

    @property
    def meter_count(self) -> int:
        """How many meters there are."""
        return len(self._rates) + len(self._buckets)

    def _noted(self, key: str, throttle_ms: int) -> int:
        if throttle_ms:
            self.throttled[key] += 1
        return throttle_ms

    def _now_ms(self) -> int:
        return int(self._clock.monotonic() * 1000)


def _is_address(who: Entity) -> bool:
    return who[0][0] == IP


class _Mutations:
    """What one request may change.

    Strict: nothing any more once credits are owed, and whoever owes some is told by an error how long to wait. Else:
    anything, and the wait comes after; for versions of requests that do not know that error.
    """

    def __init__(self, throttles: Throttles, bucket: TokenBucket, limit: float, *, strict: bool) -> None:
        self._throttles, self._bucket, self._limit, self._strict = throttles, bucket, limit, strict
        self._until_ms = 0

    def spend(self, partitions: int) -> None:
        """Change so many partitions; raise `Refused` if that is not allowed now."""
        now_ms = self._throttles._now_ms()
        owed_ms = self._bucket.excess_ms(self._limit, now_ms) if self._strict else 0
        if owed_ms:
            self._until_ms = now_ms + owed_ms
            raise Refused(ErrorCode.THROTTLING_QUOTA_EXCEEDED, "The throttling quota has been exceeded.")
        self._bucket.record(partitions, self._limit, now_ms)
        if not self._strict:
            self._until_ms = now_ms + self._bucket.excess_ms(self._limit, now_ms)

    def throttle_time_ms(self) -> int:
        """How long is left to wait."""
        left_ms = max(0, min(self._until_ms - self._throttles._now_ms(), MAX_THROTTLE_MS))
        return self._throttles._noted(QuotaKey.CONTROLLER_MUTATION_RATE, left_ms)

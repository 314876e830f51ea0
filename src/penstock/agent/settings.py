"""Every broker-wide setting there is: those of each feature, joined, and those of connections."""

from __future__ import annotations

from penstock.audit import switch as audit
from penstock.authorization import settings as authorization
from penstock.base.config_values import INT, INT_MAX, LONG
from penstock.base.memory import DEFAULT_BYTES, LEAST_BYTES
from penstock.base.settings import declare, joined, setting
from penstock.groups import settings as groups
from penstock.identity import settings as identity
from penstock.log import settings as log
from penstock.quotas import settings as quotas
from penstock.share import settings as share
from penstock.telemetry import settings as telemetry
from penstock.transactions import settings as transactions

CONNECTIONS = declare(
    setting(
        "memory.max.bytes", LONG, str(DEFAULT_BYTES), at_least=LEAST_BYTES,
        doc="How much memory clients can make an agent hold in total.",
    ),
    setting(
        "slow.request.log.ms", INT, "1000", at_least=-1,
        doc="A request that takes as many milliseconds is named in the log, every ten seconds at most; -1: never.",
    ),
    setting(
        "socket.request.max.bytes", INT, "104857600", at_least=1,
        doc="The largest request; a longer one closes its connection.",
    ),
    setting("max.connections", INT, str(INT_MAX), "The most connections at a time.", at_least=0),
    setting(
        "max.connections.per.ip", INT, str(INT_MAX), at_least=0,
        doc="The most connections from one address at a time.",
    ),
    setting(
        "connections.max.idle.ms", LONG, "600000",
        doc="How long a connection may be idle before it is closed; negative: for ever.",
    ),
)  # fmt: skip

SETTINGS = joined(
    CONNECTIONS, audit.SETTINGS, authorization.SETTINGS, groups.SETTINGS, identity.SETTINGS, log.SETTINGS,
    quotas.SETTINGS, share.SETTINGS, telemetry.SETTINGS, transactions.SETTINGS,
)  # fmt: skip

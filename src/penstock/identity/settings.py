"""Settings of authentication, under Kafka's names."""

from __future__ import annotations

from penstock.base.config_values import INT, LONG
from penstock.base.settings import declare, setting

SETTINGS = declare(
    setting(
        "connections.max.reauth.ms", LONG, "0", at_least=0,
        doc="How long a SASL session lasts before its client has to authenticate again (KIP-368); 0: for ever.",
    ),
    setting(
        "connection.failed.authentication.delay.ms", INT, "100", at_least=0,
        doc="How long a failed authentication waits for its response; longer while attempts from one network keep"
        " failing. With 0 there is no delay and no limit on failed attempts.",
    ),
    setting(
        "delegation.token.max.lifetime.ms", LONG, "604800000", at_least=1,
        doc="How long a delegation token can be kept alive by renewing it.",
    ),
    setting(
        "delegation.token.expiry.time.ms", LONG, "86400000", at_least=1,
        doc="How long a delegation token lasts unless it is renewed.",
    ),
    setting(
        "sasl.server.max.receive.size", INT, "524288", at_least=1024,
        doc="The largest request before a connection has authenticated.",
    ),
)  # fmt: skip

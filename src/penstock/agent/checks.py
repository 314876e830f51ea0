"""Checks of options before anything is opened."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from penstock.agent.listeners import listeners_of
from penstock.agent.settings import SETTINGS
from penstock.base.errors import InvalidRequest
from penstock.base.lazy import lazy_import
from penstock.base.memory import DEFAULT_BYTES, LEAST_BYTES, MemoryBounds, machine_bytes
from penstock.base.options import UpOptions
from penstock.base.settings import BrokerSettings
from penstock.keys.local_file import check_key_file

if TYPE_CHECKING:
    from penstock.identity import tokens
else:
    tokens = lazy_import("penstock.identity.tokens")

MEMORY = "memory.max.bytes"
ON_THE_PAGE = "prometheus"
"""Where metrics of clients go that go nowhere else."""


def checked_settings(options: UpOptions) -> BrokerSettings:
    """The broker's settings, once nothing is wrong with the options: raise `InvalidRequest` with the cure."""
    listeners_of(options)
    check_destination(options.client_metrics)
    settings = SETTINGS.started_with(options.settings)
    memory_bounds(options, settings)
    token_rules(options, settings)
    key_file = master_key_file(options)
    if key_file is not None:
        check_key_file(key_file)
    elif options.encrypt:
        raise InvalidRequest("encryption needs a file of master keys, also for data in memory: add --master-key-file")
    return settings


def check_destination(text: str | None) -> None:
    """Raise `InvalidRequest` unless metrics could go there."""
    if text is None or text == ON_THE_PAGE:
        return
    try:
        url = urlsplit(text)
        usable = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise InvalidRequest(
            "--client-metrics takes the URL of an OTLP receiver, such as http://127.0.0.1:4318/v1/metrics, or"
            f" {ON_THE_PAGE}"
        )


def memory_bounds(options: UpOptions, settings: BrokerSettings) -> MemoryBounds:
    """How much memory clients can make it hold. Raises `InvalidRequest` if more was asked for than there is."""
    total, there = settings.whole(MEMORY), machine_bytes()
    if MEMORY in options.settings and there is not None and total > there:
        raise InvalidRequest(
            f"{MEMORY}={total} is more than the {there} bytes of memory that this machine, container or service has."
            f" The default is {DEFAULT_BYTES}, the minimum {LEAST_BYTES}"
        )
    return MemoryBounds.of(total)


def slow_request_s(settings: BrokerSettings) -> float:
    """From where on the log tells of a request."""
    slow_ms = settings.whole("slow.request.log.ms")
    return inf if slow_ms < 0 else slow_ms / 1000


def master_key_file(options: UpOptions) -> Path | None:
    """Where master keys are; None if there is no place for any."""
    if options.master_key_file is not None:
        return options.master_key_file
    return None if options.data_dir is None else options.data_dir / "keys" / "master-keys"


def token_rules(options: UpOptions, settings: BrokerSettings) -> tokens.TokenRules | None:
    """How delegation tokens are made, if there are any. Raises `InvalidRequest` if their key cannot be had."""
    file = options.delegation_token_key_file
    if file is None:
        return None
    try:
        key = file.read_bytes().strip()
    except OSError as error:
        raise InvalidRequest(f"the key of delegation tokens cannot be read in {file}") from error
    if len(key) < tokens.MIN_KEY_BYTES:
        raise InvalidRequest(f"the key of delegation tokens in {file} needs {tokens.MIN_KEY_BYTES} bytes or more")
    return tokens.TokenRules(
        key=key, max_lifetime_ms=settings.whole("delegation.token.max.lifetime.ms"),
        expiry_time_ms=settings.whole("delegation.token.expiry.time.ms"),
    )  # fmt: skip

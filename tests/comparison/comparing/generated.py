"""Sequences that every version of every API gets: a plain request, and what is wrong with its bytes.

A request of defaults asks for nothing, for the thing named "", or for everything; `PLAIN` says better where that could
not be answered, or would wait.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from penstock.wire import codec
from penstock.wire.api_keys import ApiKey

from .messages import TITLES
from .sequences import Sequence_, Step, served, stable

PLAIN: Mapping[ApiKey, Mapping[str, Any]] = {
    ApiKey.API_VERSIONS: {"client_software_name": "raw", "client_software_version": "1"},
    ApiKey.INIT_PRODUCER_ID: {"transactional_id": None, "transaction_timeout_ms": 60_000},
    ApiKey.PRODUCE: {"acks": -1, "timeout_ms": 1000},
    ApiKey.FETCH: {"max_wait_ms": 0, "session_epoch": -1},
    ApiKey.ADD_PARTITIONS_TO_TXN: {"transactions": [{"transactional_id": ""}]},  # None at all is never answered.
}
UNKNOWN_TAGS = "020a03616263630178"
"""Two tagged fields, 10 and 99, that no API has."""


def generated() -> Iterator[Sequence_]:
    """All of them."""
    for key, versions in sorted(served().items()):
        for version in versions:
            api = ApiKey(key)
            yield _one(api, version, "a plain request", alone=True)
            yield _one(api, version, "a request that ends a byte too early", cut=1)
            yield _one(api, version, "a request without a body", body="")
            yield _one(api, version, "a request with bytes after its end", extra="abcdef")
            if codec.is_flexible(key, version):
                yield _one(api, version, "a request with tagged fields that nobody knows", tags=UNKNOWN_TAGS)
        yield _unknown_version(ApiKey(key), stable(ApiKey(key)).stop)


def _one(key: ApiKey, version: int, name: str, *, alone: bool = False, **words: Any) -> Sequence_:
    step = Step(key=key, version=version, fields=PLAIN.get(key, {}), words=words)
    return Sequence_(
        group="every version", name=f"{TITLES[key]} v{version}, {name}", topics={}, parameters={}, steps=[step],
        alone=alone,
    )  # fmt: skip


def _unknown_version(key: ApiKey, version: int) -> Sequence_:
    step = Step(key=key, version=version + 1, fields={}, words={"body": "00"})
    return Sequence_(
        group="every version", name=f"{TITLES[key]} in a version that does not exist", topics={}, parameters={},
        steps=[step],
    )  # fmt: skip

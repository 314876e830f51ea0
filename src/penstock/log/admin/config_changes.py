"""Requested changes of configuration, turned into functions over a resource's overrides. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum

from penstock.base.config_values import ConfigKey, ConfigResource, ConfigType
from penstock.base.dataclasses import dataclass
from penstock.base.errors import InvalidRequest
from penstock.base.settings import BrokerSettings, SettingTable
from penstock.log import topic_configs
from penstock.log.refusals import Refused
from penstock.wire.error_codes import ErrorCode
from penstock.wire.primitives import STRING_MAX_BYTES

Overrides = Mapping[str, str]
MAX_KEYS = 1_000
"""The most keys of one resource that a request may set: more than any resource has, and each may occur once."""
FOREIGN_STATIC = frozenset(
    {
        "broker.id", "broker.rack", "controller.listener.names",
        "controller.quorum.bootstrap.servers", "controller.quorum.voters", "inter.broker.listener.name", "log.dir",
        "log.dirs", "metadata.log.dir", "node.id", "offsets.topic.num.partitions", "offsets.topic.replication.factor",
        "process.roles", "queued.max.requests", "security.inter.broker.protocol", "socket.receive.buffer.bytes",
        "socket.send.buffer.bytes", "transaction.state.log.num.partitions",
        "transaction.state.log.replication.factor",
    }
)  # fmt: skip
"""Settings of Apache Kafka that it does not change at run time either, and that have no meaning here."""


class AlterConfigOp(IntEnum):
    """What an edit does to a key, by Kafka's numbers (KIP-339)."""

    SET = 0
    DELETE = 1
    APPEND = 2
    SUBTRACT = 3


@dataclass(frozen=True, slots=True)
class Edit:
    """The edit of one key."""

    name: str
    operation: AlterConfigOp
    value: str | None


def edits(asked: Iterable[tuple[str, int, str | None]]) -> list[Edit]:
    """Read a resource's edits (name, operation number, value); raise `Refused` if they cannot be carried out."""
    found = []
    for name, operation, value in asked:
        if operation not in AlterConfigOp.__members__.values():
            raise Refused(ErrorCode.INVALID_REQUEST, f"Unknown operation {operation} for {name}.")
        found.append(Edit(name, AlterConfigOp(operation), value))
    _no_repetition([edit.name for edit in found])
    nulls = [edit.name for edit in found if edit.value is None and edit.operation is not AlterConfigOp.DELETE]
    if nulls:
        raise Refused(ErrorCode.INVALID_REQUEST, f"Null value not supported for: {', '.join(nulls)}")
    return found


def replacement(asked: Sequence[tuple[str, str | None]]) -> dict[str, str]:
    """Read the overrides that are to replace all others; raise `Refused` for repeated names and null values."""
    _no_repetition([name for name, _ in asked])
    nulls = [name for name, value in asked if value is None]
    if nulls:
        raise Refused(ErrorCode.INVALID_REQUEST, f"Null value not supported for: {', '.join(nulls)}")
    return {name: value for name, value in asked if value is not None}


def replaced_by(wanted: Overrides) -> Callable[[Overrides], Overrides]:
    """The change that replaces all overrides by these."""
    return lambda before: wanted


def _no_repetition(names: Sequence[str]) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise Refused(ErrorCode.INVALID_REQUEST, f"Error due to duplicate config keys: {', '.join(repeated)}")


def edited(
    before: Overrides, changes: Sequence[Edit], keys: Mapping[str, ConfigKey], default: Callable[[str], str]
) -> Overrides:
    """A resource's overrides after edits. APPEND and SUBTRACT start from the default where a list has no override."""
    after = dict(before)
    for edit in changes:
        if edit.operation is AlterConfigOp.DELETE or edit.value is None:
            after.pop(edit.name, None)
        elif edit.operation is AlterConfigOp.SET:
            after[edit.name] = edit.value
        else:
            key = keys.get(edit.name)
            if key is None or key.type is not ConfigType.LIST:
                raise Refused(
                    ErrorCode.INVALID_CONFIG,
                    f"Can't {edit.operation.name} to key {edit.name} because its type is not LIST.",
                )
            words = _words(after.get(edit.name, default(edit.name)))
            asked = edit.value.split(",")  # An empty text is one empty word, which no list may hold.
            asked = [word.strip() for word in asked]
            if edit.operation is AlterConfigOp.APPEND:
                present = frozenset(words)
                words += [word for word in asked if word not in present]
            else:
                unwanted = frozenset(asked)
                words = [word for word in words if word not in unwanted]
            after[edit.name] = ",".join(words)
            if len(after[edit.name].encode()) > STRING_MAX_BYTES:
                raise Refused(ErrorCode.INVALID_CONFIG, f"{edit.name} would be longer than a string can be.")
    return after


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")] if text else []


def lists_of(kind: ConfigResource, settings: SettingTable) -> Mapping[str, ConfigKey]:
    """The keys whose lists APPEND and SUBTRACT apply to. As in Kafka, lists of groups and of client metrics
    subscriptions can only be set."""
    match kind:
        case ConfigResource.TOPIC:
            return topic_configs.TOPIC_KEYS
        case ConfigResource.BROKER:
            return settings.keys
        case _:
            return {}


def default_of(kind: ConfigResource, settings: BrokerSettings) -> Callable[[str], str]:
    """The value of such a list while it has no override."""
    if kind is ConfigResource.TOPIC:
        return lambda name: topic_configs.broker_default(name, settings)
    return lambda name: settings.text(name) or ""


def check_broker(before: Overrides, after: Overrides, settings: SettingTable) -> None:
    """Raise `Refused` unless the overrides of a running broker may change to these."""
    for name in before.keys() | after.keys():
        if before.get(name) == after.get(name):
            continue
        if name in FOREIGN_STATIC:
            raise Refused(ErrorCode.INVALID_REQUEST, f"Cannot update these configs dynamically: [{name}]")
        if name not in settings.keys:
            raise Refused(ErrorCode.INVALID_CONFIG, f"Unknown broker configuration {name}")
        if name in after:
            try:
                settings.check_dynamic(name, after[name])
            except InvalidRequest as error:
                raise Refused(ErrorCode.INVALID_REQUEST, str(error)) from error

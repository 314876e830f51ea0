"""Settings of topics over the Kafka protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from penstock.base.dataclasses import dataclass
from penstock.cli.kafka.client import Client
from penstock.cli.kafka.failures import check
from penstock.wire.api_keys import ApiKey
from penstock.wire.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResourceResult,
    DescribeConfigsResponse,
)
from penstock.wire.messages.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
)

TOPIC = 2
SET, DELETE = 0, 1
TOPIC_SOURCE = 1
SOURCES = {TOPIC_SOURCE: "topic", 2: "broker", 3: "cluster", 4: "broker file", 5: "default"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One setting, where its value comes from, and what it would be if the topic did not set it."""

    name: str
    value: str | None
    source: str
    otherwise: str | None

    @property
    def differs(self) -> bool:
        """Whether the topic sets it."""
        return self.source == "topic"


def topic_configs(client: Client, name: str) -> dict[str, Config]:
    """Every setting of a topic, by name."""
    request = DescribeConfigsRequest(
        resources=[DescribeConfigsResource(resource_type=TOPIC, resource_name=name, configuration_keys=None)],
        include_synonyms=True,
    )

    def attempt() -> dict[str, Config]:
        result = client.anyone().call(ApiKey.DESCRIBE_CONFIGS, request, DescribeConfigsResponse).results[0]
        check(result.error_code, f"topic {name!r}", result.error_message)
        return {
            config.name: Config(
                name=config.name,
                value=config.value,
                source=SOURCES.get(config.config_source, "unknown"),
                otherwise=_otherwise(config),
            )
            for config in sorted(result.configs, key=lambda config: config.name)
        }

    return client.settled(attempt)


def _otherwise(config: DescribeConfigsResourceResult) -> str | None:
    # Kafka also lists synonyms in other units, such as log.retention.hours: those would be read as this setting's.
    for synonym in config.synonyms:
        if synonym.source != TOPIC_SOURCE and synonym.value is not None and synonym.name.endswith(config.name):
            return str(synonym.value)
    return None


def alter_topic_configs(
    client: Client, name: str, *, changed: Mapping[str, str], unset: Iterable[str], dry_run: bool
) -> None:
    """Set some settings of a topic and let others go back to what they would be otherwise."""
    configs = [AlterableConfig(name=key, config_operation=SET, value=value) for key, value in changed.items()]
    configs += [AlterableConfig(name=key, config_operation=DELETE, value=None) for key in unset]
    request = IncrementalAlterConfigsRequest(
        resources=[AlterConfigsResource(resource_type=TOPIC, resource_name=name, configs=configs)],
        validate_only=dry_run,
    )

    def attempt() -> None:
        answer = client.ask_controller(ApiKey.INCREMENTAL_ALTER_CONFIGS, request, IncrementalAlterConfigsResponse)
        check(answer.responses[0].error_code, f"topic {name!r}", answer.responses[0].error_message)

    client.settled(attempt)

"""Settings of topics, groups, brokers and client metrics subscriptions over the Kafka protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from penstock.base.config_values import ConfigResource, ConfigSource
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
from penstock.wire.messages.list_config_resources import ListConfigResourcesRequest, ListConfigResourcesResponse

SET, DELETE = 0, 1
SOURCES: Mapping[int, str] = {
    ConfigSource.TOPIC: "topic",
    ConfigSource.DYNAMIC_BROKER: "broker",
    ConfigSource.DYNAMIC_DEFAULT_BROKER: "cluster",
    ConfigSource.STATIC_BROKER: "static",
    ConfigSource.DEFAULT: "default",
    ConfigSource.CLIENT_METRICS: "client-metrics",
    ConfigSource.GROUP: "group",
}
_OWN: Mapping[ConfigResource, frozenset[int]] = {
    ConfigResource.TOPIC: frozenset({ConfigSource.TOPIC}),
    ConfigResource.BROKER: frozenset({ConfigSource.DYNAMIC_BROKER, ConfigSource.DYNAMIC_DEFAULT_BROKER}),
    ConfigResource.CLIENT_METRICS: frozenset({ConfigSource.CLIENT_METRICS}),
    ConfigResource.GROUP: frozenset({ConfigSource.GROUP}),
}
"""Sources of values that are set on the resource itself."""
NAMES = {
    ConfigResource.TOPIC: "topic",
    ConfigResource.BROKER: "broker",
    ConfigResource.CLIENT_METRICS: "client-metrics",
    ConfigResource.GROUP: "group",
}


class Resource(NamedTuple):
    """What has settings. A broker without a name stands for all of them."""

    kind: ConfigResource
    name: str

    def __str__(self) -> str:
        return f"{NAMES[self.kind]} {self.name!r}" if self.name else "all brokers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One setting, where its value comes from, and what it would be if the resource did not set it."""

    name: str
    value: str | None
    source: str
    otherwise: str | None
    is_own: bool
    """Whether it is set on the resource itself."""
    read_only: bool
    """Whether it can be changed by a restart only."""


def topic_configs(client: Client, name: str) -> dict[str, Config]:
    """Every setting of a topic, by name."""
    return configs_of(client, Resource(ConfigResource.TOPIC, name))


def configs_of(client: Client, resource: Resource) -> dict[str, Config]:
    """Every setting of a resource, by name."""
    asked = DescribeConfigsResource(
        resource_type=resource.kind, resource_name=resource.name, configuration_keys=None
    )  # fmt: skip
    request = DescribeConfigsRequest(resources=[asked], include_synonyms=True)

    def attempt() -> dict[str, Config]:
        result = client.any_node().call(ApiKey.DESCRIBE_CONFIGS, request, DescribeConfigsResponse).results[0]
        check(result.error_code, str(resource), result.error_message)
        own = _OWN[resource.kind]
        return {
            config.name: Config(
                name=config.name,
                value=config.value,
                source=SOURCES.get(config.config_source, "unknown"),
                otherwise=_otherwise(config, own),
                is_own=config.config_source in own,
                read_only=config.read_only,
            )
            for config in sorted(result.configs, key=lambda config: config.name)
        }

    return client.retry(attempt)


def _otherwise(config: DescribeConfigsResourceResult, own: frozenset[int]) -> str | None:
    # Kafka also lists synonyms in other units, such as log.retention.hours: those would be read as this setting's.
    for synonym in config.synonyms:
        if synonym.source not in own and synonym.value is not None and synonym.name.endswith(config.name):
            return str(synonym.value)
    return None


def alter_configs(
    client: Client, resource: Resource, *, changed: Mapping[str, str], unset: Iterable[str], dry_run: bool
) -> None:
    """Set some settings of a resource and let others go back to what they would be otherwise."""
    configs = [AlterableConfig(name=key, config_operation=SET, value=value) for key, value in changed.items()]
    configs += [AlterableConfig(name=key, config_operation=DELETE, value=None) for key in unset]
    altered = AlterConfigsResource(resource_type=resource.kind, resource_name=resource.name, configs=configs)
    request = IncrementalAlterConfigsRequest(resources=[altered], validate_only=dry_run)

    def attempt() -> None:
        answer = client.call_controller(ApiKey.INCREMENTAL_ALTER_CONFIGS, request, IncrementalAlterConfigsResponse)
        (result,) = answer.responses
        detail = result.error_message or ""
        if resource.kind is ConfigResource.BROKER and "dynamically" in detail:
            detail += f". They are set at the start: penstock up --set {next(iter(changed), 'KEY')}=VALUE"
        check(result.error_code, str(resource), detail)

    client.retry(attempt)


def configured(client: Client, kinds: Iterable[ConfigResource]) -> list[Resource]:
    """Resources of these kinds that have settings."""
    request = ListConfigResourcesRequest(resource_types=[int(kind) for kind in kinds])

    def attempt() -> list[Resource]:
        answer = client.any_node().call(ApiKey.LIST_CONFIG_RESOURCES, request, ListConfigResourcesResponse)
        check(answer.error_code, "settings")
        found = answer.config_resources
        return sorted(Resource(ConfigResource(one.resource_type), one.resource_name) for one in found)

    return client.retry(attempt)

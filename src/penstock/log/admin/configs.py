"""Kafka's configuration APIs: ListConfigResources, DescribeConfigs, AlterConfigs, IncrementalAlterConfigs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from penstock.base.config_values import ConfigResource, ConfigSource, ConfigType
from penstock.base.context import PERMANENT_CLUSTER_IDS, RequestContext
from penstock.base.cooperative import ResponseBudget, count_keys, map_each, yield_if_due
from penstock.base.errors import PlatformError
from penstock.log import topic_names
from penstock.log.admin import config_changes, config_entries, loggers
from penstock.log.admin.config_changes import MAX_KEYS, AlterConfigOp, Edit, Overrides
from penstock.log.admin.config_entries import Entry
from penstock.log.admin.config_kinds import ConfigKind
from penstock.log.admin.failures import admin_failure
from penstock.log.brokers import Brokers
from penstock.log.model import Topic
from penstock.log.refusals import Refused
from penstock.log.topics import Topics, check_overrides, unknown_topic
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import alter_configs, incremental_alter_configs, list_config_resources
from penstock.wire.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResourceResult,
    DescribeConfigsResponse,
    DescribeConfigsResult,
    DescribeConfigsSynonym,
)
from penstock.wire.primitives import parts_of

ConfigChange = Callable[[Overrides], Overrides]

DESCRIBED_MAX = 500_000
"""The most values in one answer of DescribeConfigs, synonyms included: what ten thousand topics have."""
RESOURCES_AT_ONCE = 8
"""How many resources, each with dozens of values, are processed before the event loop is yielded."""
TYPES_SINCE = 1
"""Below this version ListConfigResources listed client metrics subscriptions only."""


class ConfigHandlers:
    """Kafka's configuration APIs over `Topics`, which stores all configuration. `kinds`: beside topics and brokers."""

    def __init__(self, topics: Topics, brokers: Brokers, kinds: Mapping[ConfigResource, ConfigKind]) -> None:
        self._topics, self._brokers, self._kinds = topics, brokers, kinds

    # ---- listed ---------------------------------------------------------------------------------------------------

    async def list_config_resources(
        self, context: RequestContext, request: list_config_resources.ListConfigResourcesRequest
    ) -> list_config_resources.ListConfigResourcesResponse:
        """ListConfigResources, key 74, v0-1. v0: client metrics subscriptions (KIP-1000). v1: resources of any type, of
        all types if none is named (KIP-1142); a group is listed once it has a configuration."""
        listable = [kind for kind in ConfigResource if kind is not ConfigResource.UNKNOWN]
        if context.api_version < TYPES_SINCE:
            listable = [ConfigResource.CLIENT_METRICS]
        asked = dict.fromkeys(request.resource_types)
        if any(number not in listable for number in asked):
            return list_config_resources.ListConfigResourcesResponse(error_code=ErrorCode.UNSUPPORTED_VERSION)
        response = list_config_resources.ListConfigResourcesResponse()
        for kind in map(ConfigResource, asked or listable):
            names = self._resources(context, kind)
            response.config_resources += await map_each(names, partial(_listed, kind))
        return response

    def _resources(self, context: RequestContext, kind: ConfigResource) -> list[str]:
        match kind:
            case ConfigResource.TOPIC:
                return [topic.name for topic in self._topics.registry.all(context.cluster_id)]
            case ConfigResource.BROKER_LOGGER if not _runs_the_deployment(context):
                return []
            case ConfigResource.BROKER | ConfigResource.BROKER_LOGGER:
                return [str(broker.node_id) for broker in self._brokers.alive(context)]
            case _:
                return self._topics.configured(context.cluster_id, kind)

    # ---- shown ----------------------------------------------------------------------------------------------------

    async def describe_configs(
        self, context: RequestContext, request: DescribeConfigsRequest
    ) -> DescribeConfigsResponse:
        """DescribeConfigs, key 32, v1-4. v1: sources and synonyms. v3: types and documentation. v4: flexible."""
        results, budget = [], ResponseBudget(DESCRIBED_MAX)
        for number, resource in enumerate(request.resources):
            await yield_if_due(number, RESOURCES_AT_ONCE)
            result = DescribeConfigsResult(
                error_message="", resource_type=resource.resource_type, resource_name=resource.resource_name
            )
            try:
                if not budget.is_left:
                    raise Refused(
                        ErrorCode.POLICY_VIOLATION, f"One answer has {DESCRIBED_MAX} values at most: ask for fewer."
                    )
                entries = self._entries(context, resource)
            except Refused as refusal:
                result.error_code, result.error_message = refusal.code, refusal.message
            else:
                keys = frozenset(resource.configuration_keys or ())
                result.configs = [
                    _shown(entry, synonyms=request.include_synonyms, doc=request.include_documentation)
                    for entry in entries
                    if not keys or entry.name in keys
                ]
            budget.spend(parts_of(result))
            results.append(result)
        return DescribeConfigsResponse(results=results)

    def _entries(self, context: RequestContext, resource: DescribeConfigsResource) -> Sequence[Entry]:
        name = resource.resource_name
        cluster_id = context.cluster_id
        kind = _kind(resource.resource_type)
        settings = self._topics.settings.of(cluster_id)
        self._check_name(kind, name)
        match kind:
            case ConfigResource.TOPIC:
                return config_entries.topic_entries(self._topic(context, name).overrides, settings)
            case ConfigResource.BROKER if not name:
                return config_entries.cluster_wide_entries(settings)
            case ConfigResource.BROKER:
                me = next(broker for broker in self._brokers.alive(context) if broker.node_id == int(name))
                entries = config_entries.broker_entries(me, settings)
                return entries if _runs_the_deployment(context) else config_entries.without_secrets(entries)
            case ConfigResource.BROKER_LOGGER:
                _check_deployment(context)
                return [
                    Entry(name=logger, value=level, source=ConfigSource.BROKER_LOGGER, type=ConfigType.UNKNOWN, doc="")
                    for logger, level in loggers.levels().items()
                ]
            case _:
                return self._kinds[kind].entries(self._topics.overrides(cluster_id, kind, name), settings)

    def _check_name(self, kind: ConfigResource, name: str) -> None:
        complaint = None
        match kind:
            case ConfigResource.BROKER if not name:
                return
            case ConfigResource.BROKER | ConfigResource.BROKER_LOGGER if name != str(self._brokers.node_id):
                complaint = f"Unexpected broker id, expected {self._brokers.node_id}, but received '{name}'"
            case ConfigResource.GROUP if not name:
                complaint = "Group name must not be empty"
            case ConfigResource.CLIENT_METRICS if not name:
                complaint = "Client metrics subscription name must not be empty"
            case ConfigResource.TOPIC:
                topic_names.check(name)
        if complaint is not None:
            raise Refused(ErrorCode.INVALID_REQUEST, complaint)

    def _topic(self, context: RequestContext, name: str) -> Topic:
        topic = self._topics.registry.by_name(context.cluster_id, name)
        if topic is None:
            raise unknown_topic(name)
        return topic

    # ---- changed ----------------------------------------------------------------------------------------------------

    async def alter_configs(
        self, context: RequestContext, request: alter_configs.AlterConfigsRequest
    ) -> alter_configs.AlterConfigsResponse:
        """AlterConfigs, key 33, v0-2: the given values replace all overrides of a resource. v2: flexible."""
        seen = await count_keys((resource.resource_type, resource.resource_name) for resource in request.resources)
        responses = []
        for number, resource in enumerate(request.resources):
            await yield_if_due(number, RESOURCES_AT_ONCE)
            response = alter_configs.AlterConfigsResourceResponse(
                error_message=None, resource_type=resource.resource_type, resource_name=resource.resource_name
            )
            try:
                kind = _kind(resource.resource_type)
                _check_once(seen[resource.resource_type, resource.resource_name])
                if kind is ConfigResource.BROKER_LOGGER:
                    raise Refused(ErrorCode.INVALID_REQUEST, "Log levels are changed by IncrementalAlterConfigs only.")
                _check_number(resource.configs)
                wanted = config_changes.replacement([(config.name, config.value) for config in resource.configs])
                change = config_changes.replaced_by(wanted)
                await self._alter(context, kind, resource.resource_name, change, request.validate_only)
            except PlatformError as error:
                response.error_code, response.error_message = admin_failure(error)
            responses.append(response)
        return alter_configs.AlterConfigsResponse(responses=responses)

    async def incremental_alter_configs(
        self, context: RequestContext, request: incremental_alter_configs.IncrementalAlterConfigsRequest
    ) -> incremental_alter_configs.IncrementalAlterConfigsResponse:
        """IncrementalAlterConfigs, key 44, v0-1 (KIP-339): set, delete, append, subtract."""
        seen = await count_keys((resource.resource_type, resource.resource_name) for resource in request.resources)
        responses = []
        for number, resource in enumerate(request.resources):
            await yield_if_due(number, RESOURCES_AT_ONCE)
            response = incremental_alter_configs.AlterConfigsResourceResponse(
                error_message=None, resource_type=resource.resource_type, resource_name=resource.resource_name
            )
            try:
                kind = _kind(resource.resource_type)
                _check_once(seen[resource.resource_type, resource.resource_name])
                _check_number(resource.configs)
                edits = config_changes.edits(
                    (config.name, config.config_operation, config.value) for config in resource.configs
                )
                await self._edit(context, kind, resource.resource_name, edits, request.validate_only)
            except PlatformError as error:
                response.error_code, response.error_message = admin_failure(error)
            responses.append(response)
        return incremental_alter_configs.IncrementalAlterConfigsResponse(responses=responses)

    async def _edit(
        self, context: RequestContext, kind: ConfigResource, name: str, edits: Sequence[Edit], validate_only: bool
    ) -> None:
        if kind is ConfigResource.BROKER_LOGGER:
            self._check_name(kind, name)
            _check_deployment(context)
            _edit_loggers(edits, validate_only)
            return
        settings = self._topics.settings.of(context.cluster_id)
        keys, default = config_changes.lists_of(kind, settings.table), config_changes.default_of(kind, settings)

        def change(before: Overrides) -> Overrides:
            return config_changes.edited(before, edits, keys, default)

        await self._alter(context, kind, name, change, validate_only)

    async def _alter(
        self, context: RequestContext, kind: ConfigResource, name: str, change: ConfigChange, validate_only: bool
    ) -> None:
        cluster_id, settings = context.cluster_id, self._topics.settings
        if kind is ConfigResource.TOPIC:
            await self._alter_topic(context, name, change, validate_only)
            return
        self._check_name(kind, name)

        def checked(before: Overrides) -> Overrides:
            after = change(before)
            if kind is ConfigResource.BROKER:
                config_changes.check_broker(before, after, settings.start.table)
            else:
                self._kinds[kind].check(after, settings.of(cluster_id))
            return after

        if kind is ConfigResource.BROKER:
            await self._topics.alter_broker(cluster_id, name, checked, validate_only=validate_only)
        else:
            await self._topics.alter_other(cluster_id, kind, name, checked, validate_only=validate_only)

    async def _alter_topic(self, context: RequestContext, name: str, change: ConfigChange, validate_only: bool) -> None:
        if not name:
            raise Refused(ErrorCode.INVALID_REQUEST, "Default topic resources are not allowed.")
        topic_names.check(name)
        topic = self._topics.registry.by_name(context.cluster_id, name)
        if topic is None:  # Kafka looks at the values first.
            check_overrides(change({}), self._topics.settings.of(context.cluster_id))
            raise unknown_topic(name)
        await self._topics.alter_topic(topic, change, validate_only=validate_only)


def _runs_the_deployment(context: RequestContext) -> bool:
    """Whether the caller operates the deployment. Tenants may not look into the process."""
    return context.is_platform_admin or context.cluster_id in PERMANENT_CLUSTER_IDS


def _check_deployment(context: RequestContext) -> None:
    if not _runs_the_deployment(context):
        raise Refused(ErrorCode.CLUSTER_AUTHORIZATION_FAILED, "Log levels are those of the whole deployment.")


def _kind(number: int) -> ConfigResource:
    try:
        kind = ConfigResource(number)
    except ValueError:
        kind = ConfigResource.UNKNOWN
    if kind is ConfigResource.UNKNOWN:
        raise Refused(ErrorCode.INVALID_REQUEST, f"Unsupported resource type {number}")
    return kind


def _check_once(count: int) -> None:
    if count > 1:
        raise Refused(ErrorCode.INVALID_REQUEST, "Each resource must appear at most once.")


def _check_number(configs: Sequence[object]) -> None:
    if len(configs) > MAX_KEYS:
        raise Refused(ErrorCode.INVALID_REQUEST, f"A resource has no more than {MAX_KEYS} keys.")


def _listed(kind: ConfigResource, name: str) -> list_config_resources.ConfigResource:
    return list_config_resources.ConfigResource(resource_name=name, resource_type=kind)


def _edit_loggers(edits: Sequence[Edit], validate_only: bool) -> None:
    levels = {}
    for edit in edits:
        if edit.operation not in (AlterConfigOp.SET, AlterConfigOp.DELETE):
            raise Refused(
                ErrorCode.INVALID_REQUEST, f"{edit.operation.name} is not supported for the log level of {edit.name}"
            )
        levels[edit.name] = edit.value if edit.operation is AlterConfigOp.SET else None
        loggers.check(edit.name, levels[edit.name])
    if not validate_only:
        for name, level in levels.items():
            loggers.set_level(name, level)


def _shown(entry: Entry, *, synonyms: bool, doc: bool) -> DescribeConfigsResourceResult:
    return DescribeConfigsResourceResult(
        name=entry.name,
        value=None if entry.sensitive else entry.value,
        read_only=entry.read_only,
        config_source=entry.source,
        is_sensitive=entry.sensitive,
        synonyms=[
            DescribeConfigsSynonym(name=synonym.name, value=synonym.value, source=synonym.source)
            for synonym in entry.synonyms
        ]
        if synonyms
        else [],
        config_type=entry.type,
        # Kafka sends an empty text for loggers, whether documentation was requested or not.
        documentation=entry.doc if doc or entry.source is ConfigSource.BROKER_LOGGER else None,
    )

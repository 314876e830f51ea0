"""Why an API of Apache Kafka's brokers is not served, or a level of a feature: the reference page is made from this.

A test sees to it that every API is either in the table of `penstock.agent.apis` or explained here.
"""

from __future__ import annotations

from collections.abc import Mapping

from penstock.wire.api_keys import ApiKey

_SHARE_STATE = (
    "How Apache Kafka's brokers keep the state of share groups in a topic, and tell each other. Here that state is in"
    " the database; no client asks for it."
)
_VOTERS = (
    "There is no quorum of controllers whose voters could be changed: metadata is in a database, which replicates"
    " itself or does not."
)
_MEMBERS = (
    "A broker is a live agent. One that has gone is no member any more by itself, and one that lives cannot be declared"
    " gone."
)

NOT_SERVED: Mapping[ApiKey, str] = {
    ApiKey.UNREGISTER_BROKER: _MEMBERS,
    ApiKey.ADD_RAFT_VOTER: _VOTERS,
    ApiKey.REMOVE_RAFT_VOTER: _VOTERS,
    ApiKey.INITIALIZE_SHARE_GROUP_STATE: _SHARE_STATE,
    ApiKey.READ_SHARE_GROUP_STATE: _SHARE_STATE,
    ApiKey.WRITE_SHARE_GROUP_STATE: _SHARE_STATE,
    ApiKey.DELETE_SHARE_GROUP_STATE: _SHARE_STATE,
    ApiKey.READ_SHARE_GROUP_STATE_SUMMARY: _SHARE_STATE,
    ApiKey.STREAMS_GROUP_TOPOLOGY_DESCRIPTION_UPDATE: (
        "Descriptions of topologies are for a plugin that keeps them (KIP-1331). There is none, and without one Apache"
        " Kafka asks no client for them either."
    ),
    ApiKey.UNREGISTER_CONTROLLER: _MEMBERS,
}

_FORMAT = "A format of Apache Kafka's own metadata and replication."

LEVELS_NOT_SERVED: Mapping[str, str] = {
    "metadata.version": _FORMAT,
    "kraft.version": _FORMAT,
    "eligible.leader.replicas.version": _FORMAT,
}

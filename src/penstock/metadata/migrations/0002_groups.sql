-- Coordinators: leases of slots, classic groups, committed offsets.

-- Who coordinates a slot, under which fencing epoch. cluster_id 0: slots shared by all virtual clusters.
CREATE TABLE lease (
    cluster_id {I32} NOT NULL,
    slot {I32} NOT NULL,
    holder {TEXT} NOT NULL,
    epoch {I64} NOT NULL,
    write_number {I64} NOT NULL,
    expires_ms {I64},
    PRIMARY KEY (cluster_id, slot)
);

-- One row per group. `state` is the whole group in the encoding of penstock.groups.encoding; the other columns repeat
-- what is asked without decoding it.
CREATE TABLE group_ (
    cluster_id {I32} NOT NULL,
    group_id {TEXT} NOT NULL,
    slot {I32} NOT NULL,
    protocol_type {TEXT} NOT NULL,
    member_count {I32} NOT NULL,
    empty_since_ms {I64},
    state {BLOB} NOT NULL,
    PRIMARY KEY (cluster_id, group_id)
);

-- What a coordinator reads when it takes over: groups with members, which have sessions to watch.
CREATE INDEX group_with_members ON group_ (slot) WHERE member_count > 0;

CREATE TABLE group_offset (
    cluster_id {I32} NOT NULL,
    group_id {TEXT} NOT NULL,
    topic_id {BLOB} NOT NULL,
    partition_index {I32} NOT NULL,
    committed_offset {I64} NOT NULL,
    leader_epoch {I32} NOT NULL,
    metadata {TEXT} NOT NULL,
    committed_ms {I64} NOT NULL,
    expires_ms {I64},
    PRIMARY KEY (cluster_id, group_id, topic_id, partition_index)
);

-- The offsets that go with a deleted topic.
CREATE INDEX group_offset_topic ON group_offset (cluster_id, topic_id);

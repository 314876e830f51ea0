-- The log: shards, topics, partitions, objects, commits, segments, producers, configuration, usage.

-- A part of the metadata with its own sequence of commits.
CREATE TABLE shard (
    shard_id {I32} PRIMARY KEY,
    commit_seq {I64} NOT NULL DEFAULT 0,
    wal_floor {I64} NOT NULL DEFAULT 0,
    epoch {I64} NOT NULL DEFAULT 0
) {HOT};

INSERT INTO shard (shard_id, commit_seq, wal_floor, epoch) VALUES (1, 0, 0, 0);

-- Virtual clusters.
CREATE TABLE cluster (
    cluster_id {I32} PRIMARY KEY,
    name {TEXT} NOT NULL UNIQUE,
    shard_id {I32} NOT NULL,
    kafka_id {TEXT} NOT NULL,
    created_ms {I64} NOT NULL
);

CREATE TABLE topic (
    cluster_id {I32} NOT NULL,
    topic_id {BLOB} NOT NULL,
    name {TEXT} NOT NULL,
    replication_factor {I32} NOT NULL,
    created_ms {I64} NOT NULL,
    PRIMARY KEY (cluster_id, topic_id),
    UNIQUE (cluster_id, name)
);

-- The heads: where the next record of a partition goes, and what is left of its log.
CREATE TABLE partition (
    partition_id {ID} PRIMARY KEY,
    cluster_id {I32} NOT NULL,
    shard_id {I32} NOT NULL,
    topic_id {BLOB} NOT NULL,
    partition_index {I32} NOT NULL,
    next_offset {I64} NOT NULL DEFAULT 0,
    log_start {I64} NOT NULL DEFAULT 0,
    segmented_to {I64} NOT NULL DEFAULT 0,
    size_bytes {I64} NOT NULL DEFAULT 0,
    cleaned_to {I64} NOT NULL DEFAULT 0,
    first_dirty_ms {I64} NOT NULL DEFAULT -1,
    head_seq {I64} NOT NULL DEFAULT 0,
    UNIQUE (cluster_id, topic_id, partition_index)
) {HOT};

-- What differs from the defaults.
CREATE TABLE config (
    cluster_id {I32} NOT NULL,
    kind {I16} NOT NULL,
    name {TEXT} NOT NULL,
    key {TEXT} NOT NULL,
    value {TEXT} NOT NULL,
    PRIMARY KEY (cluster_id, kind, name, key)
);

-- Partitions of deleted topics whose objects are still to be let go of.
CREATE TABLE topic_deletion (
    partition_id {ID} PRIMARY KEY,
    cluster_id {I32} NOT NULL,
    topic_id {BLOB} NOT NULL,
    deleted_ms {I64} NOT NULL
);

-- Identifiers are handed out by adding to these.
CREATE TABLE counter (
    name {TEXT} PRIMARY KEY,
    value {I64} NOT NULL
) {HOT};

INSERT INTO counter (name, value) VALUES ('partition', 1), ('producer', 0);

-- The last batches of each idempotent producer, packed.
CREATE TABLE producer_state (
    partition_id {I64} NOT NULL,
    producer_id {I64} NOT NULL,
    epoch {I32} NOT NULL,
    last_ms {I64} NOT NULL,
    batches {BLOB} NOT NULL,
    PRIMARY KEY (partition_id, producer_id)
) {HOT};

-- One row per object in the store. `live`: how many segments point into it; dead_ms: since when none does.
CREATE TABLE object (
    object_id {BLOB} PRIMARY KEY,
    shard_id {I32} NOT NULL,
    key {TEXT} NOT NULL,
    size_bytes {I64} NOT NULL,
    kind {I16} NOT NULL,
    live {I32} NOT NULL,
    created_ms {I64} NOT NULL,
    dead_ms {I64}
);

CREATE INDEX object_dead ON object (dead_ms) WHERE dead_ms IS NOT NULL;

-- One row per flush, with everything it holds packed; `seq` has no gaps. What agents follow.
CREATE TABLE wal_commit (
    shard_id {I32} NOT NULL,
    seq {I64} NOT NULL,
    object_id {BLOB} NOT NULL,
    wal_key {TEXT} NOT NULL,
    wal_offset {I64} NOT NULL,
    wal_length {I64} NOT NULL,
    committed_ms {I64} NOT NULL,
    agent_id {I32} NOT NULL,
    entries {BLOB} NOT NULL,
    bases {BLOB} NOT NULL,
    PRIMARY KEY (shard_id, seq)
);

CREATE UNIQUE INDEX wal_commit_object ON wal_commit (object_id);

-- The index of compacted data: a stretch of one partition inside an object.
CREATE TABLE segment (
    partition_id {I64} NOT NULL,
    last_offset {I64} NOT NULL,
    base_offset {I64} NOT NULL,
    object_id {BLOB} NOT NULL,
    byte_offset {I64} NOT NULL,
    byte_length {I64} NOT NULL,
    record_count {I64} NOT NULL,
    min_timestamp {I64} NOT NULL,
    max_timestamp {I64} NOT NULL,
    time_index {BLOB} NOT NULL,
    offset_index {BLOB} NOT NULL,
    generation {I32} NOT NULL,
    PRIMARY KEY (partition_id, last_offset)
) {NOROWID};

CREATE INDEX segment_object ON segment (object_id);

-- What was used, per virtual cluster and stretch of time. Metrics are numbered in the code.
CREATE TABLE usage (
    cluster_id {I32} NOT NULL,
    bucket_ms {I64} NOT NULL,
    metric {I16} NOT NULL,
    shard_id {I32} NOT NULL,
    value {I64} NOT NULL,
    PRIMARY KEY (cluster_id, bucket_ms, metric, shard_id)
) {HOT};

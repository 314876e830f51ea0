-- The log: virtual clusters, topics and partitions, commits of WAL objects, segments, producers, usage.

-- A set of partitions whose commits share one sequence.
CREATE TABLE shard (
    shard_id {I32} PRIMARY KEY,
    commit_seq {I64} NOT NULL DEFAULT 0,
    -- Commits below this one are in segments.
    wal_floor {I64} NOT NULL DEFAULT 0,
    epoch {I32} NOT NULL DEFAULT 0
) {HOT};

-- A virtual cluster. Ids are handed out by us; 1 is the embedded deployment's.
CREATE TABLE cluster (
    cluster_id {I32} PRIMARY KEY,
    name {TEXT} NOT NULL UNIQUE,
    shard_id {I32} NOT NULL,
    kafka_id {TEXT} NOT NULL
);

-- Numbers that are handed out once. A reservation locks the row until its commit.
CREATE TABLE counter (
    name {TEXT} PRIMARY KEY,
    value {I64} NOT NULL
) {HOT};

INSERT INTO counter (name, value) VALUES ('partition', 1);
INSERT INTO counter (name, value) VALUES ('producer', 0);

CREATE TABLE topic (
    cluster_id {I32} NOT NULL,
    topic_id {BLOB} NOT NULL,
    name {TEXT} NOT NULL,
    replication_factor {I32} NOT NULL,
    created_ms {I64} NOT NULL,
    PRIMARY KEY (cluster_id, topic_id),
    UNIQUE (cluster_id, name)
) {NOROWID};

-- Partitions of deleted topics whose objects are still to be removed.
CREATE TABLE topic_deletion (
    partition_id {ID} PRIMARY KEY,
    cluster_id {I32} NOT NULL,
    topic_id {BLOB} NOT NULL,
    deleted_ms {I64} NOT NULL
);

-- Overrides. kind: Kafka's resource types (2 topic, 4 broker, 32 group).
CREATE TABLE config (
    cluster_id {I32} NOT NULL,
    kind {I16} NOT NULL,
    name {TEXT} NOT NULL,
    key {TEXT} NOT NULL,
    value {TEXT} NOT NULL,
    PRIMARY KEY (cluster_id, kind, name, key)
) {NOROWID};

CREATE TABLE partition (
    partition_id {ID} PRIMARY KEY,
    cluster_id {I32} NOT NULL,
    shard_id {I32} NOT NULL,
    topic_id {BLOB} NOT NULL,
    partition_index {I32} NOT NULL,
    next_offset {I64} NOT NULL DEFAULT 0,
    log_start {I64} NOT NULL DEFAULT 0,
    -- The commit that next_offset reflects; later commits are replayed on top of it.
    head_seq {I64} NOT NULL DEFAULT 0,
    -- Everything below this offset is in segments.
    segmented_to {I64} NOT NULL DEFAULT 0,
    size_bytes {I64} NOT NULL DEFAULT 0,
    -- Key compaction has seen everything below this offset.
    cleaned_to {I64} NOT NULL DEFAULT 0,
    first_dirty_ms {I64} NOT NULL DEFAULT -1
) {HOT};

CREATE UNIQUE INDEX partition_of_topic ON partition (cluster_id, topic_id, partition_index);

-- Objects that hold segments. `live`: how many segments lie in it; `dead_ms`: since when none does.
CREATE TABLE object (
    object_id {BLOB} PRIMARY KEY,
    shard_id {I32} NOT NULL,
    key {TEXT} NOT NULL,
    size_bytes {I64} NOT NULL,
    kind {I16} NOT NULL,
    live {I32} NOT NULL,
    created_ms {I64} NOT NULL,
    dead_ms {I64}
) {NOROWID};

CREATE INDEX object_dead ON object (dead_ms) WHERE dead_ms IS NOT NULL;

-- One row per WAL object, gap-free by seq: what agents follow, and what recovery replays.
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
) {NOROWID};

CREATE UNIQUE INDEX wal_commit_object ON wal_commit (object_id);

-- One row per run of a partition's batches in an object.
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
    generation {I32} NOT NULL DEFAULT 0,
    PRIMARY KEY (partition_id, last_offset)
);

CREATE INDEX segment_of_object ON segment (object_id);

-- The last batches of idempotent producers, as of the partition's head_seq.
CREATE TABLE producer_state (
    partition_id {I64} NOT NULL,
    producer_id {I64} NOT NULL,
    epoch {I16} NOT NULL,
    last_ms {I64} NOT NULL,
    batches {BLOB} NOT NULL,
    PRIMARY KEY (partition_id, producer_id)
) {HOT}{NOROWID};

CREATE TABLE producer_id_block (
    shard_id {I32} PRIMARY KEY,
    next_id {I64} NOT NULL
) {HOT};

-- What is metered, counted in the transaction that causes it.
CREATE TABLE usage (
    cluster_id {I32} NOT NULL,
    bucket_ms {I64} NOT NULL,
    metric {I16} NOT NULL,
    shard_id {I32} NOT NULL,
    value {I64} NOT NULL,
    PRIMARY KEY (cluster_id, bucket_ms, metric, shard_id)
) {HOT}{NOROWID};

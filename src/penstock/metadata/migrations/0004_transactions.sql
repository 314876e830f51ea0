-- Transactions: who owns transactional ids, offsets that wait for the end of a transaction, and what was aborted.

-- One row per transactional id. `partitions` are the ids of those added by request, packed; `group_ids` is a JSON
-- array. Which partitions a transaction has written to is in their logs.
CREATE TABLE txn (
    cluster_id {I32} NOT NULL,
    transactional_id {TEXT} NOT NULL,
    producer_id {I64} NOT NULL,
    epoch {I32} NOT NULL,
    last_producer_id {I64} NOT NULL,
    last_epoch {I32} NOT NULL,
    timeout_ms {I32} NOT NULL,
    state {I16} NOT NULL,
    partitions {BLOB} NOT NULL,
    group_ids {TEXT} NOT NULL,
    started_ms {I64} NOT NULL,
    updated_ms {I64} NOT NULL,
    PRIMARY KEY (cluster_id, transactional_id)
) {HOT};

-- Offsets that become committed if and when their producer's transaction does.
CREATE TABLE txn_offset (
    cluster_id {I32} NOT NULL,
    producer_id {I64} NOT NULL,
    group_id {TEXT} NOT NULL,
    topic_id {BLOB} NOT NULL,
    partition_index {I32} NOT NULL,
    committed_offset {I64} NOT NULL,
    leader_epoch {I32} NOT NULL,
    metadata {TEXT} NOT NULL,
    committed_ms {I64} NOT NULL,
    PRIMARY KEY (cluster_id, producer_id, group_id, topic_id, partition_index)
) {HOT};

CREATE INDEX txn_offset_group ON txn_offset (cluster_id, group_id);

-- Aborted transactions of which a partition still has batches in segments; those in the WAL are in commit rows.
CREATE TABLE aborted_txn (
    partition_id {I64} NOT NULL,
    last_offset {I64} NOT NULL,
    producer_id {I64} NOT NULL,
    first_offset {I64} NOT NULL,
    stable_offset {I64} NOT NULL,
    PRIMARY KEY (partition_id, last_offset)
) {NOROWID};

-- The transaction that the producer had open in the partition where its segments end.
ALTER TABLE producer_state ADD COLUMN txn_first_offset {I64} NOT NULL DEFAULT -1;
ALTER TABLE producer_state ADD COLUMN txn_started_ms {I64} NOT NULL DEFAULT -1;

-- Share groups: what each of them has taken from a partition and is not done with.

-- `state` is what is in flight, in the encoding of penstock.share.encoding; the other columns say where that begins and
-- how much of it is done with, for those who ask for lag. Slots are those of share partitions, after those of groups.
CREATE TABLE share_partition (
    cluster_id {I32} NOT NULL,
    group_id {TEXT} NOT NULL,
    topic_id {BLOB} NOT NULL,
    partition_index {I32} NOT NULL,
    slot {I32} NOT NULL,
    start_offset {I64} NOT NULL,
    delivery_complete {I64} NOT NULL,
    state_epoch {I32} NOT NULL,
    state {BLOB} NOT NULL,
    PRIMARY KEY (cluster_id, group_id, topic_id, partition_index)
) {HOT};

-- What goes with a deleted topic.
CREATE INDEX share_partition_topic ON share_partition (cluster_id, topic_id);

-- Share groups: how many records of a partition are given up whose letters the dead letter queue is still to have, and
-- of which of them it has letters already, though `state` does not say so yet: stretches, first and last offset.
ALTER TABLE share_partition ADD COLUMN archiving {I64} NOT NULL DEFAULT 0;
ALTER TABLE share_partition ADD COLUMN told {BLOB};

CREATE INDEX share_partition_archiving ON share_partition (cluster_id) WHERE archiving > 0;

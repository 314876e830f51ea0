-- Encryption at rest: the data keys of clusters, wrapped by master keys that a key service keeps.
CREATE TABLE cluster_keys (
    cluster_id {I32} PRIMARY KEY,
    state {I16} NOT NULL,
    master_key_id {TEXT} NOT NULL,
    current_key_id {I64} NOT NULL,
    retired_master_key_id {TEXT} NOT NULL
);

CREATE TABLE data_key (
    key_id {I64} PRIMARY KEY,
    cluster_id {I32} NOT NULL,
    master_key_id {TEXT} NOT NULL,
    wrapped {BLOB} NOT NULL,
    created_ms {I64} NOT NULL
);

CREATE INDEX data_key_cluster ON data_key (cluster_id);

-- By which data key, and with which salt, a segment is sealed; neither where it is not.
ALTER TABLE segment ADD COLUMN key_id {I64};
ALTER TABLE segment ADD COLUMN salt {BLOB};

CREATE INDEX segment_key ON segment (key_id) WHERE key_id IS NOT NULL;

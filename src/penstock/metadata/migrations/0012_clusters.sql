-- Virtual clusters of several tenants, in environments.

CREATE TABLE environment (
    name {TEXT} PRIMARY KEY,
    created_ms {I64} NOT NULL
);

INSERT INTO environment (name, created_ms) VALUES ('default', 0);

ALTER TABLE cluster ADD COLUMN environment {TEXT} NOT NULL DEFAULT 'default';
ALTER TABLE cluster ADD COLUMN description {TEXT} NOT NULL DEFAULT '';

-- How what it keeps is encrypted; null: it is not.
ALTER TABLE cluster ADD COLUMN encryption {TEXT};

-- Since when it is being deleted: from then on nobody reaches it, and bit by bit what it holds goes, the row last.
ALTER TABLE cluster ADD COLUMN deleted_ms {I64};

CREATE TABLE cluster_limit (
    cluster_id {I32} NOT NULL,
    key {TEXT} NOT NULL,
    value {F64} NOT NULL,
    PRIMARY KEY (cluster_id, key)
);

-- The highest cluster id that was ever given: none is given twice.
INSERT INTO counter (name, value) VALUES ('cluster', 1);

-- The deployment's own virtual cluster. `kafka_id` is made at the first start.
INSERT INTO cluster (cluster_id, name, shard_id, kafka_id, created_ms) VALUES (0, 'platform', 1, '', 0);

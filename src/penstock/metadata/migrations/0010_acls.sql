-- Access control lists, of each virtual cluster. `acl_key` is a digest of all that follows: names may be too long for a
-- key. Texts are bytes, for they may contain what not every database takes as text. Numbers are Kafka's.
CREATE TABLE acl (
    cluster_id {I32} NOT NULL,
    acl_key {BLOB} NOT NULL,
    resource_type {I16} NOT NULL,
    pattern_type {I16} NOT NULL,
    resource_name {BLOB} NOT NULL,
    principal {BLOB} NOT NULL,
    host {BLOB} NOT NULL,
    operation {I16} NOT NULL,
    permission {I16} NOT NULL,
    PRIMARY KEY (cluster_id, acl_key)
);

-- Goes up with every change of ACLs, so that whoever keeps them in memory knows when to read them again.
INSERT INTO counter (name, value) VALUES ('acl', 0);

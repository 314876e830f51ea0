-- Quotas: limits of users, clients and addresses. `entity` is a JSON array of [type, name] pairs; null is the default.
CREATE TABLE quota (
    cluster_id {I32} NOT NULL,
    entity {TEXT} NOT NULL,
    key {TEXT} NOT NULL,
    value {F64} NOT NULL,
    PRIMARY KEY (cluster_id, entity, key)
);

-- Identities: what proves who somebody is. Of a secret only what cannot be turned back into it is kept.

-- What SCRAM keeps of a password, which is also what SASL PLAIN is checked with. `mechanism` by Kafka's numbers.
CREATE TABLE scram_credential (
    cluster_id {I32} NOT NULL,
    user_name {TEXT} NOT NULL,
    mechanism {I16} NOT NULL,
    iterations {I32} NOT NULL,
    salt {BLOB} NOT NULL,
    stored_key {BLOB} NOT NULL,
    server_key {BLOB} NOT NULL,
    updated_ms {I64} NOT NULL,
    PRIMARY KEY (cluster_id, user_name, mechanism)
);

-- Programs that act in their own name.
CREATE TABLE service_account (
    cluster_id {I32} NOT NULL,
    name {TEXT} NOT NULL,
    description {TEXT} NOT NULL,
    created_ms {I64} NOT NULL,
    PRIMARY KEY (cluster_id, name)
);

-- Their keys. The id is looked up before it is known which cluster somebody belongs to: the key is what says so.
CREATE TABLE api_key (
    cluster_id {I32} NOT NULL,
    key_id {TEXT} NOT NULL UNIQUE,
    owner {TEXT} NOT NULL,
    description {TEXT} NOT NULL,
    salt {BLOB} NOT NULL,
    secret_hash {BLOB} NOT NULL,
    created_ms {I64} NOT NULL,
    expires_ms {I64},
    PRIMARY KEY (cluster_id, key_id)
);

CREATE INDEX api_key_owner ON api_key (cluster_id, owner);

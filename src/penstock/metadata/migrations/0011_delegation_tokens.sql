-- Delegation tokens (KIP-48). A token's secret is derived from its id by a key that is not here; of the secret only a
-- hash is kept, to find the token by.
CREATE TABLE delegation_token (
    cluster_id {I32} NOT NULL,
    token_id {TEXT} NOT NULL,
    owner {TEXT} NOT NULL,
    requester {TEXT} NOT NULL,
    renewers {TEXT} NOT NULL,
    issued_ms {I64} NOT NULL,
    expires_ms {I64} NOT NULL,
    max_ms {I64} NOT NULL,
    hmac_hash {BLOB} NOT NULL,
    PRIMARY KEY (cluster_id, token_id)
);

CREATE INDEX delegation_token_hash ON delegation_token (cluster_id, hmac_hash);
CREATE INDEX delegation_token_expiry ON delegation_token (expires_ms);

-- Delegation tokens that were deleted together with the service account that owned or requested them: connections that
-- they authenticated are closed by every agent. Kept for as long as a session of theirs could last.
CREATE TABLE revoked_token (
    token_id {TEXT} NOT NULL,
    cluster_id {I32} NOT NULL,
    max_ms {I64} NOT NULL,
    PRIMARY KEY (token_id, cluster_id)
);

CREATE INDEX revoked_token_end ON revoked_token (max_ms);

-- Commits of several agents look producers up, to see whether they may go on with their transactions.
CREATE UNIQUE INDEX txn_producer ON txn (producer_id);

-- The group has committed an offset itself after this one was sent, and that one stays whatever becomes of this one.
ALTER TABLE txn_offset ADD COLUMN is_overtaken {I16} NOT NULL DEFAULT 0;

-- Kinds of groups beside classic ones; in these each member has a row of its own.

ALTER TABLE group_ ADD COLUMN kind {TEXT} NOT NULL DEFAULT 'classic';

-- `state` is the member in the encoding of its group's kind.
CREATE TABLE group_member (
    cluster_id {I32} NOT NULL,
    group_id {TEXT} NOT NULL,
    member_id {TEXT} NOT NULL,
    state {BLOB} NOT NULL,
    PRIMARY KEY (cluster_id, group_id, member_id)
);

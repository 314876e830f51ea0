-- The last commit that may hold records of a deleted topic. Known once the topic's segments are gone; until that commit
-- is metered, the deletion must be remembered, because it says whose the records were. Times do not tell: clocks jump.
ALTER TABLE topic_deletion ADD COLUMN last_seq {I64};

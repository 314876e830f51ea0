-- Names that are too long for a key, in full; there the key has their digest (penstock.metadata.names). Else null.
ALTER TABLE config ADD COLUMN long_name {TEXT};
ALTER TABLE group_ ADD COLUMN long_name {TEXT};
ALTER TABLE txn ADD COLUMN long_name {TEXT};
ALTER TABLE quota ADD COLUMN long_name {TEXT};
ALTER TABLE scram_credential ADD COLUMN long_name {TEXT};

-- Of these it is their group's name.
ALTER TABLE txn_offset ADD COLUMN long_name {TEXT};
ALTER TABLE share_partition ADD COLUMN long_name {TEXT};

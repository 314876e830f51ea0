"""What the log does for itself while it serves: from the WAL into segments, and everything that becomes of those.

`chores.py` puts it together, `background.py` lets the chores take turns. `wal_compaction.py` moves commits into
segments; retention, removal, merging, evacuation and the cleaner change segments through `rewriting.py`; `garbage.py`
ends objects.
"""

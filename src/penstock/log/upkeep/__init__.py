"""Background work of the log: from the WAL into segments, and everything that happens to segments.

`chores.py` wires it together, `background.py` schedules it. `wal_compaction.py` moves commits into segments; retention,
removal, merging, evacuation and the cleaner change segments through `rewriting.py`; `garbage.py` deletes objects.
"""

"""Every row of the benchmark, in the order in which they are run."""

from __future__ import annotations

from benchmarks.model import Row

from .access import GUARDED_ONE_RECORD, GUARDED_PRODUCE, TLS_CONSUME, TLS_PRODUCE
from .consuming import CONSUME_SEGMENTS, CONSUME_TAIL
from .groups import FANOUT, JOIN, MANY_MEMBERS, SHARE
from .keyed import COMPACTION
from .latency import END_TO_END_1K, END_TO_END_10K
from .lifecycle import CROWD, IDLE, RECOVERY, START
from .producing import ONE_RECORD_1, ONE_RECORD_64, PRODUCE_1M, PRODUCE_16K
from .sparse import SPARSE
from .tenants import NEIGHBOUR, NEIGHBOUR_PROCESS
from .topics import TOPICS
from .transactions import RELAY, TRANSACTIONS_1, TRANSACTIONS_10, TRANSACTIONS_100, TRANSACTIONS_PACED

ROWS: tuple[Row, ...] = (
    PRODUCE_16K,
    PRODUCE_1M,
    ONE_RECORD_64,
    ONE_RECORD_1,
    CONSUME_TAIL,
    CONSUME_SEGMENTS,
    END_TO_END_1K,
    END_TO_END_10K,
    FANOUT,
    TRANSACTIONS_1,
    TRANSACTIONS_10,
    TRANSACTIONS_100,
    TRANSACTIONS_PACED,
    RELAY,
    SHARE,
    COMPACTION,
    TOPICS,
    JOIN,
    MANY_MEMBERS,
    GUARDED_PRODUCE,
    GUARDED_ONE_RECORD,
    NEIGHBOUR,
    NEIGHBOUR_PROCESS,
    TLS_PRODUCE,
    TLS_CONSUME,
    START,
    IDLE,
    CROWD,
    SPARSE,
    RECOVERY,
)

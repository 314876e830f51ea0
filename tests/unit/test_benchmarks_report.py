"""The benchmark's kept results and its table."""

from __future__ import annotations

from benchmarks.model import Row, RowResult, Run, Variant
from benchmarks.reporting.store import Measurement, newest, save
from benchmarks.reporting.table import render
from benchmarks.rows import ROWS

PRODUCE, LARGE = ROWS[:2]
CIRCUMSTANCES = {
    "kernel": "6.1", "cpu": "Some CPU", "cores": 2, "memory_gib": 24.0, "python": "3.11", "java": "17", "go": "go1.26",
    "commit": "abc", "modified": "no", "kafka": "4.4.0", "scale": "full", "fsync_p50_ms": 1.0, "fsync_p99_ms": 2.0,
}  # fmt: skip


def measurement(
    kafka: float, penstock: float, *, failures: tuple[str, ...] = (), row: Row = PRODUCE,
    own: Variant = Variant.PENSTOCK_DISK,
) -> Measurement:  # fmt: skip
    runs = tuple(
        Run(
            variant=variant,
            repeat=0,
            attempts=1,
            others_cores=0.1,
            noisy=False,
            figures={"mb_per_s": value, "cpu_s_per_gb": 5.0, "cpu_s_per_gb_settled": 6.0},
        )
        for variant, value in ((Variant.KAFKA, kafka), (own, penstock))
    )
    result = RowResult(row=row, runs=runs, failures=failures)
    return Measurement(at="2026-11-24 03:00", circumstances=CIRCUMSTANCES, result=result)


def test_a_row_measured_again_replaces_itself(tmp_path):
    save(tmp_path, "2026-11-23", measurement(100, 100))
    save(tmp_path, "2026-11-24", measurement(100, 200))
    last = measurement(100, 300, failures=("a reason",))
    save(tmp_path, "2026-11-24", last)
    assert newest(tmp_path, ROWS) == [last]


def test_the_report_tells_what_was_reached_and_what_was_not():
    text = render([measurement(100, 200, failures=("Kafka, flush: it fell over",))], "## Notes\n\nWhy.")
    assert "1 of 2 targets are reached." in text
    assert "Kafka: 100 [100 .. 100] MB/s" in text
    assert "| 2.00 x | ≥ 1.50 x Kafka | yes |" in text
    assert "| 1.00 x | ≤ 0.50 x Kafka | **no** |" in text
    assert "it fell over" in text
    assert text.endswith("Why.\n")


def test_a_table_has_columns_of_what_its_rows_were_measured_with_only():
    disk, process = measurement(100, 200), measurement(100, 300, row=LARGE, own=Variant.PENSTOCK_PROCESS)
    first, second = render([disk, process], "").partition("## Figures")[2].partition("##")[0].strip().split("\n\n")
    assert first.startswith("| work | figure | Kafka | Penstock, disk |\n")
    assert second.startswith("| work | figure | Kafka | Penstock, process |\n")
    assert PRODUCE.title in first
    assert LARGE.title in second
    assert LARGE.title not in first


def test_rows_of_the_same_variants_share_a_table():
    text = render([measurement(100, 200), measurement(100, 300, row=LARGE)], "").partition("## Figures")[2]
    assert text.count("| work | figure |") == 1
    assert PRODUCE.title in text
    assert LARGE.title in text

"""How each figure is called, written and rounded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure's name in tables and its unit."""

    title: str
    unit: str
    factor: float = 1.0

    def write(self, value: float) -> str:
        return f"{significant(value * self.factor)} {self.unit}".rstrip()


FIGURES = {
    "mb_per_s": Figure(title="throughput", unit="MB/s"),
    "records_per_s": Figure(title="rate", unit="/s"),
    "topics_per_s": Figure(title="rate", unit="/s"),
    "cpu_s_per_gb": Figure(title="server CPU", unit="CPU-s/GB"),
    "cpu_s_per_gb_settled": Figure(title="server CPU with the work left behind", unit="CPU-s/GB"),
    "cpu_us_per_record": Figure(title="server CPU", unit="µs/record"),
    "ack_p50_ms": Figure(title="ack p50", unit="ms"),
    "ack_p99_ms": Figure(title="ack p99", unit="ms"),
    "e2e_p50_ms": Figure(title="p50", unit="ms"),
    "e2e_p99_ms": Figure(title="p99", unit="ms"),
    "e2e_typical_p99_ms": Figure(title="p99, median of windows of 2 s", unit="ms"),
    "server_cores": Figure(title="server CPU", unit="cores"),
    "e2e_alone_p50_ms": Figure(title="p50 without the crowd", unit="ms"),
    "e2e_alone_p99_ms": Figure(title="p99 without the crowd", unit="ms"),
    "p50_ratio": Figure(title="p50, with : without the crowd", unit="x"),
    "p99_ratio": Figure(title="p99, with : without the crowd", unit="x"),
    "transactions_per_s": Figure(title="rate", unit="transactions/s"),
    "commit_p50_ms": Figure(title="commit p50", unit="ms"),
    "commit_p99_ms": Figure(title="commit p99", unit="ms"),
    "cpu_us_per_transaction": Figure(title="server CPU", unit="µs/transaction"),
    "create_p50_ms": Figure(title="creation p50", unit="ms"),
    "join_s": Figure(title="all have joined", unit="s"),
    "leave_s": Figure(title="one has left", unit="s"),
    "ready_s": Figure(title="first acknowledgement", unit="s"),
    "read_s": Figure(title="first record read back", unit="s"),
    "log_gb": Figure(title="log", unit="GB"),
    "resident_mib": Figure(title="memory", unit="MiB"),
    "cpu_percent": Figure(title="CPU", unit="% of a core"),
    "written_bytes": Figure(title="written to disk", unit="bytes"),
    "loaded_resident_mib": Figure(title="memory after a load", unit="MiB"),
    "loaded_cpu_percent": Figure(title="CPU after a load", unit="% of a core"),
    "loaded_written_bytes": Figure(title="written to disk after a load", unit="bytes"),
    "compaction_s": Figure(title="until it was compacted", unit="s"),
    "server_cpu_s": Figure(title="server CPU", unit="s"),
    "create_s": Figure(title="creating the topics", unit="s"),
}


def significant(value: float) -> str:
    """Three significant digits, never in exponent form."""
    if value == 0:
        return "0"
    magnitude = abs(value)
    if magnitude >= 100:
        return f"{value:,.0f}"
    if magnitude >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if magnitude >= 0.1 else f"{value:.3f}"

"""What is compared: variants of the two servers, rows of work, figures, targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.bench import Bench

Figures = Mapping[str, float]


class Variant(Enum):
    """One way of running one of the servers."""

    KAFKA = "kafka"
    KAFKA_FLUSH = "kafka-flush"
    PENSTOCK_DISK = "penstock-disk"
    PENSTOCK_PROCESS = "penstock-process"
    PENSTOCK_GUARDED = "penstock-guarded"
    PENSTOCK_TENANT = "penstock-tenant"
    PENSTOCK_ELSEWHERE = "penstock-elsewhere"
    PENSTOCK_NEIGHBOUR = "penstock-neighbour"
    PROCESS_TENANT = "process-tenant"
    PROCESS_NEIGHBOUR = "process-neighbour"
    KAFKA_TLS = "kafka-tls"
    PENSTOCK_TLS = "penstock-tls"

    @property
    def title(self) -> str:
        return _TITLES[self]


_TITLES = {
    Variant.KAFKA: "Kafka",
    Variant.KAFKA_FLUSH: "Kafka, flush each message",
    Variant.PENSTOCK_DISK: "Penstock, disk",
    Variant.PENSTOCK_PROCESS: "Penstock, process",
    Variant.PENSTOCK_GUARDED: "Penstock, ACLs and quotas",
    Variant.PENSTOCK_TENANT: "Penstock, one tenant",
    Variant.PENSTOCK_ELSEWHERE: "Penstock, the noise at another agent",
    Variant.PENSTOCK_NEIGHBOUR: "Penstock, the noise at the same agent",
    Variant.PROCESS_TENANT: "Penstock, process, one tenant",
    Variant.PROCESS_NEIGHBOUR: "Penstock, process, the noise at the same agent",
    Variant.KAFKA_TLS: "Kafka, TLS",
    Variant.PENSTOCK_TLS: "Penstock, TLS",
}


class Goal(Enum):
    """On which side of its bound a figure shall be."""

    AT_LEAST = "≥"
    AT_MOST = "≤"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a figure of Penstock must reach: a multiple of a Kafka's in the same run, or an absolute bound."""

    figure: str
    goal: Goal
    bound: float
    subject: Variant = Variant.PENSTOCK_DISK
    reference: Variant | None = Variant.KAFKA


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table: how to do it once on one variant, and what is demanded."""

    name: str
    title: str
    variants: tuple[Variant, ...]
    measure: Callable[[Bench, Variant], Figures]
    shown: tuple[str, ...]
    targets: tuple[Target, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What a run was made in: how many cores others kept busy, and the mean speed of the processors (see `speed`)."""

    others_cores: float
    speed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One measurement that succeeded, and its conditions. Where no `speed` is known it was not looked at."""

    variant: Variant
    repeat: int
    attempts: int
    others_cores: float
    noisy: bool
    figures: Figures
    speed: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowResult:
    """All runs of a row, with what went wrong where a variant could not be measured."""

    row: Row
    runs: tuple[Run, ...]
    failures: tuple[str, ...] = field(default=())

"""The benchmark's reading of /proc, against known texts and against a process that tells what it burnt."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from benchmarks.measuring.account import Reading, between
from benchmarks.measuring.procfs import (
    TICKS_PER_S,
    ProcessStat,
    Usage,
    descendants,
    parse_busy_s,
    parse_keyed,
    parse_stat,
    read_stats,
    read_usage,
)
from benchmarks.measuring.speed import Look, Speedometer, mean_speed

# Burns CPU itself, in a child that ends, and in one that lives on; then tells how much, and waits.
BURNING = """
import os, subprocess, sys, time
burn = "import time\\nwhile time.process_time() < 0.4: pass\\n"
exec(burn)
subprocess.run([sys.executable, "-S", "-c", burn], check=True)
alive = subprocess.Popen(
    [sys.executable, "-S", "-c", burn + "print(time.process_time(), flush=True)\\nimport sys; sys.stdin.read()"],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
)
living = float(alive.stdout.readline())
times = os.times()
print(times.user + times.system + times.children_user + times.children_system + living, flush=True)
sys.stdin.read()
alive.stdin.close()
alive.wait()
"""


def test_a_stat_line_is_read_whatever_the_command_is_called():
    text = "42 (a) b (c) S 7 42 42 0 -1 4194304 1 2 3 4 100 50 20 10 20 0 1 0 99 0 0"
    assert parse_stat(text) == ProcessStat(parent=7, cpu_s=180 / TICKS_PER_S)


def test_idle_and_waiting_are_not_busy():
    assert parse_busy_s("cpu  100 10 50 9999 777 5 6 7 3 0\ncpu0 1 1 1 1\n") == 178 / TICKS_PER_S


def test_keyed_numbers_are_found():
    assert parse_keyed("VmPeak:\t  9 kB\nVmRSS:\t  1234 kB\n", "VmRSS") == 1234
    assert parse_keyed("rchar: 1\nwrite_bytes: 4096\ncancelled_write_bytes: 7\n", "write_bytes") == 4096
    assert parse_keyed("", "VmRSS") == 0


def test_a_server_is_its_process_and_all_below():
    stats = {pid: ProcessStat(parent=parent, cpu_s=1) for pid, parent in [(1, 0), (5, 1), (6, 5), (7, 6), (8, 1)]}
    assert descendants(stats, 5) == [5, 6, 7]


def test_cpu_of_a_process_and_its_ended_and_living_children_is_counted_once():
    burning = subprocess.Popen(
        [sys.executable, "-S", "-c", BURNING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with burning:
        told_s = float(burning.stdout.readline())
        usage = read_usage(read_stats(), burning.pid)
        burning.stdin.close()
    assert told_s > 1.1
    assert usage.processes == 2
    assert usage.cpu_s == pytest.approx(told_s, abs=0.06)
    assert usage.resident_mib > 5


def test_what_nobody_of_the_run_burnt_is_the_others():
    first = Reading(
        at_s=10, server=Usage(cpu_s=1, written_bytes=5), clients_cpu_s=2, harness_cpu_s=3, kernel_cpu_s=4, busy_cpu_s=50
    )
    second = Reading(
        at_s=20,
        server=Usage(cpu_s=4, written_bytes=9, resident_mib=70),
        clients_cpu_s=4,
        harness_cpu_s=3.5,
        kernel_cpu_s=4.5,
        busy_cpu_s=60,
    )
    account = between(first, second)
    assert (account.seconds, account.server_cpu_s, account.clients_cpu_s) == (10, 3, 2)
    assert account.others_cpu_s == pytest.approx(4)
    assert account.others_cores == pytest.approx(0.4)
    assert (account.written_bytes, account.resident_mib) == (4, 70)


def test_a_speed_is_that_of_the_fastest_looks_over_those_of_the_time():
    looks = [Look(at_s=at_s, processor=at_s % 2, cpu_s=cpu_s) for at_s, cpu_s in enumerate([1.0, 1.0, 2.0, 2.0, 1.0])]
    assert mean_speed(looks, 0, 4) == pytest.approx(0.8)
    assert mean_speed(looks, 2, 3) == pytest.approx(0.5)
    assert mean_speed(looks, 10, 11) == 1.0, "nobody looked"


def test_speeds_are_looked_at_on_each_processor():
    begun = time.monotonic()
    with Speedometer() as speedometer:
        while {look.processor for look in speedometer.looks} != os.sched_getaffinity(0):
            assert time.monotonic() < begun + 30
            time.sleep(0.01)
    assert 0 < speedometer.speed(begun, time.monotonic()) <= 1

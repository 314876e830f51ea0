"""kcat, the command line of librdkafka, as people and scripts use it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest
from fixtures import toolchains

Kcat = Callable[..., str]
RUN_TIMEOUT_S = 60
LINES = [f"line {number}" for number in range(100)]


@pytest.fixture
def kcat(bootstrap: str) -> Kcat:
    """Runs it; what it printed."""
    toolchains.require("kcat", "kcat")

    def run(*words: str, stdin: str = "") -> str:
        done = subprocess.run(
            ["kcat", "-b", bootstrap, *words], input=stdin, capture_output=True, text=True, timeout=RUN_TIMEOUT_S,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


@pytest.fixture
def topic(kcat: Kcat, fresh_name: Callable[..., str]) -> str:
    """A topic that comes to be by being written to."""
    name = fresh_name("kcat")
    kcat("-P", "-t", name, stdin="\n".join(LINES))
    return name


def test_lists(kcat: Kcat, topic: str) -> None:
    listed = json.loads(kcat("-L", "-J", "-t", topic))
    assert [(found["topic"], len(found["partitions"])) for found in listed["topics"]] == [(topic, 1)]
    assert f'topic "{topic}" with 1 partitions' in kcat("-L", "-t", topic)


def test_consumes_what_was_produced(kcat: Kcat, topic: str) -> None:
    assert kcat("-C", "-t", topic, "-e", "-q").split("\n") == [*LINES, ""]
    assert kcat("-C", "-t", topic, "-e", "-q", "-o", "-2").split("\n") == [*LINES[-2:], ""]
    assert kcat("-C", "-t", topic, "-e", "-q", "-o", "98", "-f", "%p@%o %s\n") == "0@98 line 98\n0@99 line 99\n"


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
def test_compressed_and_keyed(kcat: Kcat, fresh_name: Callable[..., str], compression: str) -> None:
    name = fresh_name("kcat")
    settings = ("-z", compression, "-X", "enable.idempotence=true", "-H", "from=kcat")
    kcat("-P", "-t", name, "-K", ":", *settings, stdin="\n".join(f"key:{line}" for line in LINES))
    printed = kcat("-C", "-t", name, "-e", "-q", "-f", "%k %h %s\n")
    assert printed.splitlines() == [f"key from=kcat {line}" for line in LINES]


def test_offsets_of_times(kcat: Kcat, topic: str) -> None:
    assert kcat("-Q", "-t", f"{topic}:0:-1").strip() == f"{topic} [0] offset 100"
    assert kcat("-Q", "-t", f"{topic}:0:1").strip() == f"{topic} [0] offset 0"


def test_a_group_goes_on_where_it_was(kcat: Kcat, topic: str, fresh_name: Callable[..., str]) -> None:
    group = ("-X", "auto.offset.reset=earliest", "-G", fresh_name("g"), topic)
    assert kcat("-c", "40", "-q", *group).splitlines() == LINES[:40]
    assert kcat("-e", "-q", *group).splitlines() == LINES[40:]

"""Every request of the sequences, to Apache Kafka and to Penstock: the answers are the same, or it is declared why not.

`tools/compare_with_kafka.py` runs the same, or a part of it, and shows more.
"""

from __future__ import annotations

import re

import pytest
from comparing.comparison import Comparison, compare, every_sequence
from comparing.page import PAGE, page
from fixtures import programs, toolchains

pytestmark = pytest.mark.timeout(1200)  # Includes downloading with cold caches.

GROUPS = sorted({sequence.group for sequence in every_sequence()})


@pytest.fixture(scope="session")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """One run of all sequences."""
    toolchains.require(programs.JDK, "java", "mvn")
    return compare(tmp_path_factory.mktemp("comparison"), every_sequence())


@pytest.mark.parametrize("group", GROUPS)
def test_answers_are_the_same_or_declared_not_to_be(comparison: Comparison, group: str) -> None:
    failed = [one for one in comparison.verdicts if one.sequence.group == group and not one.passed]
    assert not failed, "\n".join(f"{one.sequence.title}\n{one}" for one in failed)


def test_what_is_declared_still_occurs(comparison: Comparison) -> None:
    assert [entry.name for entry in comparison.stale] == []


COUNT = re.compile(r"(?<=\| )\d+(?= \|)|(?<=\*\*)\d+(?= of )|(?<=: )\d+(?= are answered)|(?<=, )\d+(?= differ only)")
VARIES = 3
"""By so many sequences a count may differ: in a few, what Kafka answers depends on how far it has got."""


def test_the_published_page_is_that_of_this_run(comparison: Comparison) -> None:
    published, here = PAGE.read_text(), page(comparison)
    assert COUNT.sub("N", published) == COUNT.sub("N", here), "run tools/compare_with_kafka.py, which writes it"
    counts = list(zip(map(int, COUNT.findall(published)), map(int, COUNT.findall(here)), strict=True))
    assert len(counts) > 50
    assert all(abs(one - other) <= VARIES for one, other in counts), "run tools/compare_with_kafka.py, which writes it"

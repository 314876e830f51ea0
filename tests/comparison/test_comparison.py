"""Every request of the sequences, to Apache Kafka and to Penstock: the answers are the same, or it is declared why not.

`tools/compare_with_kafka.py` runs the same, or a part of it, and shows more.
"""

from __future__ import annotations

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


def test_the_published_page_is_that_of_this_run(comparison: Comparison) -> None:
    assert PAGE.read_text() == page(comparison), "run tools/compare_with_kafka.py, which writes it"

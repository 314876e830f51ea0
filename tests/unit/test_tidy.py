"""The house style's own rules: what they see, and what they let pass."""

from __future__ import annotations

import pytest

from tools import tidy


def complaints(name: str, text: str) -> list[str]:
    return list(tidy.complaints_about(name, text))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("src/penstock/log/big.py", "x = 1\n" * 501, id="a large file"),
        pytest.param("tests/unit/test_big.py", "def f():\n" + "    x = 1\n" * 60, id="a large function"),
        pytest.param("src/penstock/log/writer.py", "x = 1\n" * 1_000, id="an exception outgrown"),
        pytest.param("tests/unit/test_a.py", "from unittest.mock import Mock\n", id="a mock"),
        pytest.param("tests/unit/test_a.py", "import mock\n", id="another mock"),
        pytest.param("src/penstock/a.py", "async def f(loop):\n    loop.create_task(g())\n", id="a task nobody keeps"),
        pytest.param("tests/unit/test_a.py", "time.sleep(0.01)\n", id="a thread asleep"),
        pytest.param("tests/unit/test_a.py", "async def f():\n    await asyncio.sleep(2)\n", id="a long sleep"),
    ],
)
def test_what_is_out_of_order(name: str, text: str) -> None:
    assert len(complaints(name, text)) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("src/penstock/log/big.py", "x = 1\n" * 500, id="as large as may be"),
        pytest.param("src/penstock/log/writer.py", "x = 1\n" * 700, id="an exception"),
        pytest.param("src/penstock/a.py", "async def f(loop):\n    return loop.create_task(g())\n", id="a task kept"),
        pytest.param("tests/unit/test_a.py", "async def f():\n    await asyncio.sleep(0.01)\n", id="a short wait"),
        pytest.param("tests/crash/test_a.py", "time.sleep(1)\n", id="elsewhere"),
        pytest.param(
            "tests/unit/test_a.py", "from fixtures.sim_loop import SimLoop\nawait_s = asyncio.sleep(9)\n",
            id="simulated time",
        ),
    ],
)  # fmt: skip
def test_what_may_be(name: str, text: str) -> None:
    assert complaints(name, text) == []


def test_exceptions_that_are_not_needed_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    small = tidy.Allowed(900, "none")
    monkeypatch.setattr(
        tidy, "ALLOWED", {"tools/tidy.py": small, "src/gone.py": small, "tools/tidy.py:line_count": small}
    )
    assert len(list(tidy.of_exceptions())) == 3


@pytest.mark.parametrize("text", ["see writer.py:120", "in line 12", "lines 3 to 5"])
def test_line_numbers_are_seen(text: str) -> None:
    assert tidy.LINE_NUMBER.search(text)
    assert not tidy.LINE_NUMBER.search("127.0.0.1:9092, 12 lines, http://h:4318/v1")

"""Our dataclasses and the standard library's, held to the same table: whoever reads one has read the other."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import MemberDescriptorType
from typing import Any, ClassVar

import pytest

from penstock.base import dataclasses as ours

Dataclass = Callable[..., Callable[[type[Any]], type[Any]]]


@pytest.fixture(params=[ours.dataclass, dataclasses.dataclass], ids=["ours", "theirs"])
def dataclass(request: pytest.FixtureRequest) -> Dataclass:
    made: Dataclass = request.param
    return made


@pytest.fixture
def point(dataclass: Dataclass) -> type[Any]:
    @dataclass(frozen=True, slots=True)
    class Point:
        """A place."""

        kind: ClassVar[str] = "point"
        x: int
        y: int = 0
        secret: str = ours.field(default="?", repr=False)
        seen: int = ours.field(default=0, compare=False)

        def moved(self) -> Any:
            return ours.replace(self, x=self.x + 1)

    return Point


def test_values_are_given_by_place_and_by_name(point: type[Any]) -> None:
    made = point(1, y=2)
    assert (made.x, made.y, made.secret, made.kind) == (1, 2, "?", "point")
    assert [item.name for item in ours.fields(point)] == ["x", "y", "secret", "seen"]
    match made:
        case point(x, y):
            assert (x, y) == (1, 2)


@pytest.mark.parametrize(
    ("args", "named", "complaint"),
    [
        ((), {}, "Point.__init__() missing 1 required positional argument: 'x'"),
        ((1,), {"z": 1}, "Point.__init__() got an unexpected keyword argument 'z'"),
        ((1, 2, "", 4, 5), {}, "takes from 2 to 5 positional arguments but 6 were given"),
    ],
)
def test_wrong_values_are_refused_at_the_first_call_and_later(
    point: type[Any], args: tuple[Any, ...], named: dict[str, Any], complaint: str
) -> None:
    for _ in range(2):
        with pytest.raises(TypeError) as refusal:
            point(*args, **named)
        assert complaint in str(refusal.value)


def test_equality_and_hashes_are_those_of_what_is_compared(point: type[Any]) -> None:
    assert point(1, 2) == point(1, 2, seen=9)
    assert point(1, 2) != point(1, 3)
    assert point(1, 2) != (1, 2, "?")
    assert len({point(1, 2), point(1, 2, seen=9), point(2, 2)}) == 2


def test_what_is_frozen_cannot_be_changed(point: type[Any]) -> None:
    made = point(1)
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'x'"):
        made.x = 2
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'x'"):
        del made.x
    assert made.moved() == point(2)
    assert not hasattr(made, "__dict__")


def test_what_is_secret_is_not_shown(point: type[Any]) -> None:
    assert repr(point(1, secret="hush")).endswith("Point(x=1, y=0, seen=0)")


def test_what_is_not_frozen_has_fresh_values_and_no_hash(dataclass: Dataclass) -> None:
    @dataclass(slots=True, kw_only=True)
    class Box:
        things: list[int] = ours.field(default_factory=list)
        size: int
        total: int = ours.field(init=False)
        tries: int = ours.field(default=3, init=False)
        notes: dict[str, Any] = ours.field(default_factory=dict, init=False)

        def __post_init__(self) -> None:
            self.total = self.size * 2

    one, other = Box(size=1), Box(size=1)
    one.things.append(1)
    assert (one.total, one.tries, one.notes) == (2, 3, {})
    assert other.things == []
    assert one != other
    one.notes["me"] = one
    assert "notes={'me': ...}" in repr(one)
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)
    with pytest.raises(TypeError, match="positional"):
        Box(1)
    with pytest.raises(AttributeError):
        one.sise = 1


def test_objects_may_be_themselves_only(dataclass: Dataclass) -> None:
    @dataclass(slots=True, eq=False)
    class Turn:
        lane: int

    assert Turn(1) != Turn(1)
    assert len({Turn(1), Turn(1)}) == 2


def test_objects_may_have_an_order(dataclass: Dataclass) -> None:
    @dataclass(frozen=True, slots=True, order=True)
    class Place:
        row: int
        seat: int

    assert sorted([Place(2, 1), Place(1, 2), Place(1, 1)]) == [Place(1, 1), Place(1, 2), Place(2, 1)]
    assert Place(1, 1) <= Place(1, 1) < Place(1, 2)
    assert Place(2, 1) >= Place(1, 2)
    with pytest.raises(TypeError, match="not supported"):
        assert Place(1, 1) < 2


def test_a_class_without_fields_and_own_methods_are_kept(dataclass: Dataclass) -> None:
    @dataclass(frozen=True, slots=True)
    class Nothing:
        def __repr__(self) -> str:
            return "nothing"

    assert Nothing() == Nothing()
    assert hash(Nothing()) == hash(Nothing())
    assert repr(Nothing()) == "nothing"


def test_the_constructor_is_written_when_it_is_first_called() -> None:
    @ours.dataclass(slots=True)
    class Late:
        x: int

    before = Late.__init__
    assert Late(1).x == 1
    written = Late.__init__
    assert written is not before
    assert Late(2).x == 2
    assert Late.__init__ is written


def test_fields_are_found_out_when_somebody_asks() -> None:
    @ours.dataclass(slots=True)
    class Late:
        x: int = ours.field(default=1, metadata={"unit": "m"})
        kind: ClassVar[str] = "late"

    before = vars(Late)["__dataclass_fields__"]
    assert [(item.name, item.default, dict(item.metadata)) for item in ours.fields(Late)] == [("x", 1, {"unit": "m"})]
    assert vars(Late)["__dataclass_fields__"] is not before
    assert Late.kind == "late"
    assert isinstance(vars(Late)["x"], MemberDescriptorType)


def test_a_class_has_the_fields_of_the_one_it_is_made_from(dataclass: Dataclass) -> None:
    @dataclass(frozen=True, slots=True)
    class Place:
        row: int
        seat: int = 1

    @dataclass(frozen=True, slots=True)
    class Balcony(Place):
        side: str = ours.field(default="left", compare=False)
        row: int = 7

    assert [item.name for item in ours.fields(Balcony)] == ["row", "seat", "side"]
    assert Balcony() == Balcony(7, 1, "right")
    assert ours.replace(Balcony(), seat=2) == Balcony(seat=2)
    assert Balcony(row=1) != Place(row=1)
    match Balcony(3, 4):
        case Balcony(row, seat, side):
            assert (row, seat, side) == (3, 4, "left")


def test_threads_may_ask_for_fields_at_the_same_time() -> None:
    classes = []
    for number in range(200):

        @ours.dataclass(slots=True, kw_only=True)
        class Box:
            things: list[int] = ours.field(default_factory=list)
            size: int = ours.field(default=number, init=False)

        classes.append(Box)
    meet = threading.Barrier(4)

    def ask() -> list[tuple[list[int], int]]:
        meet.wait()
        return [(box.things, box.size) for box in (kind(things=[1]) for kind in classes)]

    with ThreadPoolExecutor(4) as threads:
        for asked in [threads.submit(ask) for _ in range(4)]:
            assert asked.result() == [([1], number) for number in range(200)]

"""`dataclass` of the standard library, but for when methods are made: a start needs few of the hundreds of classes.

The standard library writes and compiles six methods of each class when its module is imported, which was a third of
what a start took. Here those that have to be fast are written when they are called for the first time, and the others
are ordinary functions. A frozen object is made faster, too: its constructor sets the slots themselves. What nobody here
uses is not there: `InitVar`, and copies of frozen objects by `copy` or `pickle`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, FrozenInstanceError, field, fields, replace
from dataclasses import dataclass as with_fields
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any, NoReturn

__all__ = ["FrozenInstanceError", "dataclass", "field", "fields", "replace"]

Method = Callable[..., Any]
_ORDER = {"__lt__": "<", "__le__": "<=", "__gt__": ">", "__ge__": ">="}


def _dataclass(
    *, frozen: bool = False, slots: bool = True, kw_only: bool = False, eq: bool = True, order: bool = False
) -> Callable[[type[Any]], type[Any]]:
    """The decorator as it is when the program runs. Every class has slots."""
    assert slots, "a class without slots would have a dictionary in every object"

    def decorate(cls: type[Any]) -> type[Any]:
        made = with_fields(init=False, repr=False, eq=False, slots=True, kw_only=kw_only)(cls)
        methods: dict[str, Method | None] = {"__repr__": _repr}
        methods["__init__"] = _late(made, "__init__", lambda: _constructor(made, frozen))
        if frozen:
            methods |= {"__setattr__": _refuse_to_set, "__delattr__": _refuse_to_delete}
        if eq:
            methods["__eq__"] = _late(made, "__eq__", lambda: _comparison(made, "__eq__", "=="))
            methods["__hash__"] = _late(made, "__hash__", lambda: _hash(made)) if frozen else None
        if order:
            methods |= {name: _late(made, name, _ordering(made, name, sign)) for name, sign in _ORDER.items()}
        for name, method in methods.items():
            if name not in cls.__dict__:
                setattr(made, name, method)
        return made

    return decorate


# ---- written when they are called ----------------------------------------------------------------------------


def _late(cls: type[Any], name: str, write: Callable[[], Method]) -> Method:
    """A method that is replaced by the real one as soon as it is called. Threads may do that at the same time."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        written = write()
        setattr(cls, name, written)
        return written(self, *args, **kwargs)

    return method


def _written(cls: type[Any], name: str, parameters: str, body: str, known: dict[str, Any]) -> Method:
    exec(f"def {name}({parameters}):\n{body}", known)
    written: Method = known[name]
    written.__qualname__, written.__module__ = f"{cls.__qualname__}.{name}", cls.__module__
    return written


def _constructor(cls: type[Any], frozen: bool) -> Method:
    positional, named, lines = list[str](), list[str](), list[str]()
    known: dict[str, Any] = {"_missing": MISSING}
    for item in fields(cls):
        name, parameter, value = item.name, item.name, item.name
        if item.default_factory is not MISSING:
            known[f"_new_{name}"] = item.default_factory
            parameter = f"{name}=_missing"
            value = f"_new_{name}() if {name} is _missing else {name}" if item.init else f"_new_{name}()"
        elif item.default is not MISSING:
            known[f"_default_{name}"] = item.default
            parameter = f"{name}=_default_{name}"
            value = name if item.init else f"_default_{name}"
        elif not item.init:
            continue  # `__post_init__` sets it.
        if item.init:
            (named if item.kw_only else positional).append(parameter)
        if frozen:
            known[f"_set_{name}"] = getattr(cls, name).__set__  # The slot's own, which the class does not refuse.
        lines.append(f"  _set_{name}(self, {value})\n" if frozen else f"  self.{name} = {value}\n")
    if hasattr(cls, "__post_init__"):
        lines.append("  self.__post_init__()\n")
    parameters = ", ".join(["self", *positional, *(["*", *named] if named else [])])
    return _written(cls, "__init__", parameters, "".join(lines) or "  pass", known)


def _comparison(cls: type[Any], name: str, sign: str) -> Method:
    compared = f"{_values(cls, 'self')} {sign} {_values(cls, 'other')}"
    body = f"  return {compared} if other.__class__ is self.__class__ else NotImplemented"
    return _written(cls, name, "self, other", body, {})


def _ordering(cls: type[Any], name: str, sign: str) -> Callable[[], Method]:
    return lambda: _comparison(cls, name, sign)


def _hash(cls: type[Any]) -> Method:
    return _written(cls, "__hash__", "self", f"  return hash({_values(cls, 'self')})", {})


def _values(cls: type[Any], of: str) -> str:
    """A tuple of what tells objects of a class apart, as an expression."""
    return f"({''.join(f'{of}.{item.name}, ' for item in fields(cls) if item.compare)})"


# ---- the same for all ----------------------------------------------------------------------------------------


@recursive_repr()
def _repr(self: Any) -> str:
    shown = ", ".join(f"{item.name}={getattr(self, item.name)!r}" for item in fields(self) if item.repr)
    return f"{type(self).__qualname__}({shown})"


def _refuse_to_set(self: Any, name: str, value: Any) -> NoReturn:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(self: Any, name: str) -> NoReturn:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    dataclass = _dataclass

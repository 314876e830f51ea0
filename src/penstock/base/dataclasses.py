"""A lazy `dataclass`, because a start uses few of the hundreds of classes.

The standard library inspects the fields of a class, and generates and compiles six methods, when the class's module is
imported; that was 40 % of the start-up time. Here the class only gets its slots at import. Its fields are inspected
when they are needed, methods that have to be fast are compiled at their first call, and the others are ordinary
functions. Frozen objects are also created faster: their constructor sets the slots directly. Not supported: `InitVar`,
`KW_ONLY`, and copying frozen objects with `copy` or `pickle`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError, field, fields, replace
from dataclasses import dataclass as with_fields
from reprlib import recursive_repr
from threading import RLock
from typing import TYPE_CHECKING, Any, NoReturn

__all__ = ["FrozenInstanceError", "dataclass", "field", "fields", "replace"]

Method = Callable[..., Any]
_ORDER = {"__lt__": "<", "__le__": "<=", "__gt__": ">", "__ge__": ">="}


def _dataclass(
    *, frozen: bool = False, slots: bool = True, kw_only: bool = False, eq: bool = True, order: bool = False
) -> Callable[[type[Any]], type[Any]]:
    """The decorator at run time; type checkers see the standard library's. Every class has slots."""
    assert slots, "a class without slots would have a dictionary in every object"

    def decorate(cls: type[Any]) -> type[Any]:
        made = _with_slots(cls, kw_only)
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


# ---- fields --------------------------------------------------------------------------------------------------


def _with_slots(cls: type[Any], kw_only: bool) -> type[Any]:
    """A copy of the class that has slots in place of its fields' default values."""
    content = dict(cls.__dict__)
    given = {
        name: content.pop(name, MISSING)
        for name, kind in content.get("__annotations__", {}).items()
        if not kind.startswith("ClassVar")
    }
    content.pop("__dict__", None)
    content.pop("__weakref__", None)
    inherited = {slot for base in cls.__mro__[1:-1] for slot in base.__dict__.get("__slots__", ())}
    content["__slots__"] = tuple(name for name in given if name not in inherited)
    by_place = [] if kw_only else [name for name, value in given.items() if not _is_made(value)]
    content["__match_args__"] = tuple(dict.fromkeys((*getattr(cls, "__match_args__", ()), *by_place)))
    content["__dataclass_fields__"] = known = _Fields(cls, kw_only)
    kind: Any = type(cls)
    made: type[Any] = kind(cls.__name__, cls.__bases__, content)
    made.__qualname__, known.of = cls.__qualname__, made
    return made


def _is_made(value: Any) -> bool:
    return isinstance(value, Field) and not value.init


class _Fields:
    """A descriptor in place of `__dataclass_fields__`, which functions of the standard library read. On first access
    the standard library inspects the class."""

    _lock = RLock()
    of: type[Any]

    def __init__(self, written: type[Any], kw_only: bool) -> None:
        self._written, self._kw_only = written, kw_only
        """The class as it was written."""

    def __get__(self, thing: object, owner: type[Any]) -> Any:
        with self._lock:
            if self.of.__dict__["__dataclass_fields__"] is self:  # Not inspected by another thread meanwhile.
                self._written.__doc__ = self._written.__doc__ or ""  # Otherwise a signature is generated: slow.
                asked: Any = with_fields(init=False, repr=False, eq=False, kw_only=self._kw_only)(self._written)
                for name in ("__dataclass_params__", "__dataclass_fields__"):
                    setattr(self.of, name, getattr(asked, name))
            return self.of.__dict__["__dataclass_fields__"]


# ---- compiled at the first call ------------------------------------------------------------------------------


def _late(cls: type[Any], name: str, write: Callable[[], Method]) -> Method:
    """A method that replaces itself with the compiled one when it is called; by several threads at once, if need be."""

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
    """The compared fields, as a tuple expression."""
    return f"({''.join(f'{of}.{item.name}, ' for item in fields(cls) if item.compare)})"


# ---- shared methods ------------------------------------------------------------------------------------------


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

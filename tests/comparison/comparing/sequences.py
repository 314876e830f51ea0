"""Sequences of requests, as the YAML files have them, spread over versions and parameters.

    a topic that is not there:                # its name
      versions: Metadata                      # once for each version of this API that Penstock serves; or `Metadata 4+`
      each: {index: [-1, 1]}                  # and for each of these values
      topics: {topic: {partitions: 2}}        # made before, and served when the sequence begins
      prepare: [stable group]                 # steps of preparations.yaml that come first; `then`: that come last
      steps:
      - Metadata: {topics: [{name: $nothing}]}   # in the version of the sequence; else the newest
        save: {id: topics.0.topic_id}            # $id in later requests to this broker
        until: {topics.0.error_code: 0}          # asked again until it is so
        via: second                              # over another connection than the others

`$name` is a topic, group or other name that nobody else uses; `$topic.id` the id of a topic made before. `$now-5` is
five milliseconds before the time that all record timestamps of a run count from. Words of a step beside these:
`silent` (no answer is due), `settle` (what it changed is waited for, where a broker learns of changes later),
`later` (its answer is read by a step `receive: connection`), `times` (how often it is asked; the last answer counts),
`cut`, `extra`, `body`, `tags` (what is done to the bytes of the request), `close: connection`, `client` (the client id
of the connection that begins with this step), `login` (with `via`: a connection begins by proving by SCRAM who somebody
is: `{user: $alice, password: secret}`, or by a token, `{token: true, user: $token, password: $hmac}`), `connect: sasl`
(with `via`: a connection begins where SASL is asked for), `raw` (with `via`: bytes that are sent as they are, after
their size, and the frame that comes back).
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml

from penstock.agent.apis import Handlers, apis
from penstock.wire import codec
from penstock.wire.api_keys import FIRST_OWN_API, ApiKey

from .messages import BY_TITLE

FOLDER = Path(__file__).resolve().parents[1] / "sequences"
PREPARATIONS = "preparations"
WORDS = {"save", "until", "via", "client", "silent", "later", "cut", "extra", "body", "tags", "settle", "times"}
AROUND = ("prepare", "then")
OTHER_STEPS = {"receive", "close", "login", "connect", "raw"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One request, or one thing done with a connection."""

    key: ApiKey | None
    version: int
    fields: Mapping[str, Any]
    words: Mapping[str, Any]
    connection: str = "main"

    @property
    def title(self) -> str:
        if self.key is None:
            return next(word for word in OTHER_STEPS if word in self.words)
        return f"{_title(self.key)} v{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence_:
    """One sequence in one version, with one set of parameters."""

    group: str
    name: str
    topics: Mapping[str, Mapping[str, Any]]
    parameters: Mapping[str, Any]
    steps: Sequence[Step]
    alone: bool = False

    @property
    def title(self) -> str:
        return f"{self.group}: {self.name}"

    @property
    def tag(self) -> str:
        """What the names of its topics and groups begin with, so that they are nobody else's."""
        return f"{zlib.crc32(self.title.encode()):08x}"


@cache
def served() -> Mapping[int, range]:
    """The versions of each of Kafka's APIs that Penstock answers."""
    kinds = {name: (get_args(hint) or (hint,))[0] for name, hint in get_type_hints(Handlers).items()}
    handlers = Handlers(**{name: object.__new__(kind) for name, kind in kinds.items()})
    return {key: api.versions for key, api in apis(handlers).items() if stable(ApiKey(key)) and key < FIRST_OWN_API}


def load() -> list[Sequence_]:
    """Every sequence of the files that Penstock has the APIs for."""
    preparations = yaml.safe_load((FOLDER / f"{PREPARATIONS}.yaml").read_text())
    found: list[Sequence_] = []
    for path in sorted(FOLDER.glob("*.yaml")):
        if path.stem != PREPARATIONS:
            for name, words in yaml.safe_load(path.read_text()).items():
                found += _distinct(_spread(path.stem, name, words, preparations))
    return found


def _distinct(spread: Iterator[Sequence_]) -> Iterator[Sequence_]:
    """The same sequences with names of their own, where parameters look alike."""
    seen: dict[str, int] = {}
    for sequence in spread:
        seen[sequence.name] = seen.get(sequence.name, 0) + 1
        again = seen[sequence.name]
        yield replace(sequence, name=f"{sequence.name} #{again}") if again > 1 else sequence


def _spread(group: str, name: str, words: Mapping[str, Any], preparations: Mapping[str, Any]) -> Iterator[Sequence_]:
    before, after = ([step for macro in words.get(place, ()) for step in preparations[macro]] for place in AROUND)
    raw = [*before, *words["steps"], *after]
    if not all(key in served() for key in _keys(raw)):
        return
    spread = words.get("versions")
    key, versions = _versions(spread) if spread else (None, [None])
    each = words.get("each", {})
    for version in versions:
        for values in itertools.product(*each.values()):
            parameters = dict(zip(each, values, strict=True))
            details = [f"v{version}"] if version is not None else []
            details += [f"{parameter.rstrip('_')} {_brief(value)}" for parameter, value in parameters.items()]
            yield Sequence_(
                group=group,
                name=f"{name} ({', '.join(details)})" if details else name,
                topics={topic: made or {} for topic, made in words.get("topics", {}).items()},
                parameters=parameters,
                steps=[_step(step, key, version) for step in raw],
                alone=bool(words.get("alone")),
            )


def _keys(raw: Sequence[Mapping[str, Any]]) -> Iterator[ApiKey]:
    for step in raw:
        api = _api(step)
        if api is not None:
            yield BY_TITLE[api.partition(" ")[0]]


def _versions(text: str) -> tuple[ApiKey, list[int | None]]:
    """`Fetch` for all versions, `Fetch 4-11`, `Fetch 12+`, `Fetch 4,12+`, `Fetch ends` for the oldest and newest."""
    title, _, limits = text.partition(" ")
    key = BY_TITLE[title]
    low, high = served()[key].start, served()[key].stop - 1
    if limits == "ends":
        return key, sorted({low, high})
    found: set[int] = set()
    for span in limits.split(",") if limits else [f"{low}+"]:
        lowest, dash, highest = span.rstrip("+").partition("-")
        last = high if span.endswith("+") else int(highest) if dash else int(lowest)
        found.update(range(max(low, int(lowest)), min(high, last) + 1))
    return key, sorted(found)


def _api(step: Mapping[str, Any]) -> str | None:
    names = [name for name in step if name not in WORDS and name not in OTHER_STEPS]
    return names[0] if names else None


def _step(step: Mapping[str, Any], spread: ApiKey | None, version: int | None) -> Step:
    api = _api(step)
    words = {name: value for name, value in step.items() if name != api}
    unknown = set(words) - WORDS - OTHER_STEPS
    if unknown:
        raise ValueError(f"a step has no {', '.join(unknown)}")
    if api is None:
        return Step(key=None, version=0, fields={}, words=words, connection=words.get("via", "main"))
    title, _, fixed = api.partition(" ")
    key = BY_TITLE[title]
    if fixed:
        used = int(fixed)
    else:
        used = version if key == spread and version is not None else served()[key].stop - 1
    return Step(key=key, version=used, fields=step[api] or {}, words=words, connection=words.get("via", "main"))


def _brief(value: Any) -> str:
    text = re.sub(r"\s+", " ", str(value))
    return text if len(text) < 60 else f"{text[:57]}…"


def _title(key: ApiKey) -> str:
    return next(title for title, known in BY_TITLE.items() if known == key)


def stable(key: ApiKey) -> range:
    """What Kafka has of an API."""
    return codec.versions(key)

"""One sequence at one broker: its requests sent, its answers read and put in the form that is compared."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fixtures.raw_client import CLIENT_ID, ConnectionClosed, request_bytes
from fixtures.secured import authenticate
from fixtures.wire import Wire

from penstock.cli.kafka.client_config import Security
from penstock.wire import codec
from penstock.wire.codec import Malformed

from .brokers import Addresses
from .messages import blob, find, plain, request
from .names import Names
from .normalising import Flat, Normaliser
from .sequences import Sequence_, Step

ANSWER_TIMEOUT_S = 20.0
UNTIL_TIMEOUT_S = 15.0
UNTIL_PAUSE_S = 0.05
ASKED_AT_ONCE = 500
BUSY = (14, 51)
"""A coordinator that loads, or still writes the markers of the last transaction: clients ask again."""
ENDING = ("PrepareCommit", "PrepareAbort")
CLOSED: Flat = {"": "the connection is closed"}
SILENT: Flat = {"": "no answer"}
SENT: Flat = {"": "sent"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one step."""

    step: Step
    flat: Flat


class Run:
    """A sequence at a broker. `reencode` demands that the codec writes each answer as it was."""

    def __init__(self, broker: Addresses, sequence: Sequence_, now_ms: int, *, reencode: bool = False) -> None:
        self._broker, self._sequence, self._reencode = broker, sequence, reencode
        self._names = Names(sequence.tag, now_ms, sequence.parameters)
        self._normaliser = Normaliser(sequence.tag, now_ms, self._names)
        self._connections: dict[str, Wire] = {}
        self._sasl: set[str] = set()
        """Connections where SASL is asked for."""
        self._due: dict[str, list[tuple[Step, int]]] = {}
        self._settled = 0

    def answers(self) -> list[Answer]:
        """Run it from beginning to end."""
        try:
            self._make_topics()
            return [Answer(step, self._perform(step)) for step in self._sequence.steps]
        finally:
            for connection in self._connections.values():
                connection.close()

    def _make_topics(self) -> None:
        if not self._sequence.topics:
            return
        with Wire(self._broker.plain, timeout_s=ANSWER_TIMEOUT_S) as wire:
            for name, made in self._sequence.topics.items():
                configs = {key: str(value) for key, value in self._names.resolve(made.get("configs", {})).items()}
                known = self._names.value(name)
                self._names.values[f"{name}.id"] = wire.create_topic(
                    known, partitions=made.get("partitions", 1), configs=configs
                )

    def _perform(self, step: Step) -> Flat:
        if "close" in step.words:
            self._connections.pop(step.words["close"]).close()
            return SENT
        try:
            if "login" in step.words:
                return self._log_in(step)
            if "connect" in step.words:
                self._sasl.add(step.connection)
                self._connection(step.connection)
                return SENT
            if "raw" in step.words:
                return self._exchange(step)
            if "receive" in step.words:
                asked, correlation_id = self._due[step.words["receive"]].pop(0)
                return self._receive(step.words["receive"], asked, correlation_id, step)
            return self._ask(step)
        except ConnectionClosed:
            self._connections.pop(step.words.get("receive", step.connection)).close()
            return CLOSED
        except TimeoutError:
            self._connections.pop(step.words.get("receive", step.connection)).close()
            return SILENT

    def _ask(self, step: Step) -> Flat:
        self._repeat(step, step.words.get("times", 1) - 1)
        deadline = time.monotonic() + UNTIL_TIMEOUT_S
        while True:
            correlation_id = self._send(step)
            if step.words.get("silent"):
                return SENT
            if step.words.get("later"):
                self._due.setdefault(step.connection, []).append((step, correlation_id))
                return SENT
            met: list[bool] = []
            flat = self._receive(step.connection, step, correlation_id, step, met)
            if (met == [True] and not _is_busy(flat)) or time.monotonic() > deadline:
                if step.words.get("settle"):
                    self._settle()
                return flat
            self._normaliser.forget_last()
            time.sleep(UNTIL_PAUSE_S)

    def _repeat(self, step: Step, times: int) -> None:
        """Ask the same so many times, whatever is answered."""
        while times > 0:
            asked = min(times, ASKED_AT_ONCE)
            for _ in range(asked):
                self._send(step)
            for _ in range(asked):
                self._connection(step.connection).receive_frame()
            times -= asked

    def _settle(self) -> None:
        """Wait for what was changed. Kafka learns of changes in their order, so of a topic made now last."""
        with Wire(self._broker.plain, timeout_s=ANSWER_TIMEOUT_S) as wire:
            self._settled += 1
            wire.create_topic(self._names.value(f"settled{self._settled}"))

    def _log_in(self, step: Step) -> Flat:
        """Begin a connection as somebody; the last answer about it."""
        deadline = time.monotonic() + UNTIL_TIMEOUT_S
        words = self._names.resolve(step.words["login"])
        secret = words["password"]
        security = Security(
            mechanism=words.get("mechanism", "SCRAM-SHA-256"), user=words["user"], is_token_auth="token" in words,
            password=secret if isinstance(secret, str) else base64.b64encode(secret).decode(),
        )  # fmt: skip
        wanted: Mapping[str, Any] = step.words.get("until", {})
        while True:
            wire = self._connections[step.connection] = Wire(self._broker.sasl, timeout_s=ANSWER_TIMEOUT_S)
            answer = plain(authenticate(wire, security))
            if all(answer[name] == value for name, value in wanted.items()) or time.monotonic() > deadline:
                return self._normaliser.flat(answer)
            wire.close()
            time.sleep(UNTIL_PAUSE_S)

    def _exchange(self, step: Step) -> Flat:
        """Bytes there and back, without a request around them."""
        wire, token = self._connection(step.connection), blob(self._names.resolve(step.words["raw"]))
        wire.send_bytes(len(token).to_bytes(4, "big") + token)
        return {"": wire.receive_frame().hex()}

    def _send(self, step: Step) -> int:
        assert step.key is not None
        wire = self._connection(step.connection, self._names.resolve(step.words.get("client", CLIENT_ID)))
        wire._correlation_id += 1  # The client numbers only what it encodes itself.
        words = step.words
        if "body" in words:
            body = bytes.fromhex(words["body"])
            head = _head(step, wire._correlation_id)
            data = (len(head) + len(body)).to_bytes(4, "big") + head + body
        else:
            fields = _with_time(self._names.resolve(step.fields), self._names.value("now"))
            message = request(step.key, fields)
            data = request_bytes(step.key, step.version, message, wire._correlation_id, wire._client_id)
            if "cut" in words:
                data = _resized(data[: -words["cut"]])
            if "tags" in words:  # In place of the empty tag section at the end.
                data = _resized(data[:-1] + bytes.fromhex(words["tags"]))
            if "extra" in words:
                data = _resized(data + bytes.fromhex(words["extra"]))
        wire.send_bytes(data)
        return wire._correlation_id

    def _receive(
        self, connection: str, asked: Step, correlation_id: int, step: Step, met: list[bool] | None = None
    ) -> Flat:
        frame = self._connection(connection).receive_frame()
        assert asked.key is not None
        got, position = codec.read_response_header(asked.key, asked.version, frame, 0)
        if got != correlation_id:
            return {"": f"answer {got} came where {correlation_id} was due"}
        version = asked.version
        try:
            message = codec.read_response(asked.key, version, frame, position)
        except (Malformed, codec.UnsupportedVersion):
            if asked.key != codec.API_VERSIONS:
                return {"": "the answer cannot be read"}
            version, message = 0, codec.read_response(asked.key, 0, frame, position)
        if self._reencode and not _same(asked, version, got, message, frame):
            return {"": "the codec writes this answer in another way"}
        answer = plain(message)
        self._names.values |= {name: find(answer, path) for name, path in step.words.get("save", {}).items()}
        wanted: Mapping[str, Any] = step.words.get("until", {})
        if met is not None:
            met.append(all(find(answer, path) == self._names.resolve(value) for path, value in wanted.items()))
        return self._normaliser.flat(answer)

    def _connection(self, name: str, client_id: str = CLIENT_ID) -> Wire:
        if name not in self._connections:
            address = self._broker.sasl if name in self._sasl else self._broker.plain
            self._connections[name] = Wire(address, timeout_s=ANSWER_TIMEOUT_S, client_id=client_id)
        return self._connections[name]


def _is_busy(flat: Flat) -> bool:
    return any(
        (path.endswith("error_code") and value in BUSY) or (path.endswith("transaction_state") and value in ENDING)
        for path, value in flat.items()
    )


def _same(asked: Step, version: int, correlation_id: int, message: Any, frame: bytes) -> bool:
    assert asked.key is not None
    return b"".join(codec.encode_response(asked.key, version, correlation_id, message))[4:] == frame


def _head(step: Step, correlation_id: int) -> bytes:
    assert step.key is not None
    name = CLIENT_ID.encode()
    head = step.key.to_bytes(2, "big") + step.version.to_bytes(2, "big") + correlation_id.to_bytes(4, "big")
    return head + len(name).to_bytes(2, "big") + name + (b"\0" if codec.is_flexible(step.key, step.version) else b"")


def _resized(data: bytes) -> bytes:
    return (len(data) - 4).to_bytes(4, "big") + data[4:]


def _with_time(fields: Any, now_ms: int) -> Any:
    """Batches that do not say when they were made were made now."""
    if isinstance(fields, list):
        return [_with_time(one, now_ms) for one in fields]
    if not isinstance(fields, Mapping):
        return fields
    done = {name: _with_time(value, now_ms) for name, value in fields.items()}
    if isinstance(done.get("records"), list):
        done["records"] = [{"timestamp": now_ms, **batch} for batch in done["records"]]
    return done

"""A consumer with an incremental fetch session (KIP-227), and one beside it that asks for everything each time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from simulation.clients import Client
from simulation.history import PartitionKey
from simulation.logs import batches_of
from simulation.world import World

from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import fetch

VERSION = 13
NO_SESSION, LAST, FIRST = 0, -1, 0
_SESSION_LOST = (ErrorCode.FETCH_SESSION_ID_NOT_FOUND, ErrorCode.INVALID_FETCH_SESSION_EPOCH)


@dataclass(frozen=True, slots=True)
class Known:
    """What there is to know of a partition at a position: what every answer says, and the records from there on."""

    error: int
    high_watermark: int
    log_start: int
    records: bytes = field(repr=False)


class SessionReader(Client):
    """Reads several partitions. `known` is what its session has let it know of each at its present position."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.positions: dict[PartitionKey, int] = {}
        self.known: dict[PartitionKey, Known] = {}
        self._session_id, self._epoch = NO_SESSION, FIRST
        self._sent: dict[PartitionKey, int] = {}
        """The positions that the session knows."""

    @property
    def has_session(self) -> bool:
        """Whether the agent remembers what is wanted."""
        return self._session_id != NO_SESSION

    def forget(self) -> None:
        """Begin anew."""
        self._session_id, self._epoch = NO_SESSION, FIRST
        self._sent, self.known = {}, {}

    async def look(self) -> tuple[Mapping[PartitionKey, Known], Mapping[PartitionKey, Known]] | None:
        """Fetch in the session, and everything just before and just after it; None if there is no session any more."""
        link = await self.link()
        incremental = self.has_session
        asked = self._request_of_session()
        answers = [
            link.send(ApiKey.FETCH, VERSION, request) for request in (self._full(), asked, self._full())
        ]  # fmt: skip
        before, told, after = [await self.reply(link, answer) for answer in answers]
        if told.error_code:
            assert told.error_code in _SESSION_LOST, ErrorCode(told.error_code)
            self.world.marks.reach("session lost")
            self.forget()
            return None
        if not incremental:
            self.known = {}
        self._session_id = told.session_id
        self._epoch += 1
        news = _known_of(told)
        if incremental and len(news) < len(self.positions):
            self.world.marks.reach("nothing new of some partitions")
        # Records are told once; of what is not in an answer, nothing has changed.
        self.known = {key: Known(was.error, was.high_watermark, was.log_start, b"") for key, was in self.known.items()}
        self.known.update(news)
        if not self.has_session:
            self.world.marks.reach("no room for a session")
        return _known_of(before), _known_of(after)

    def move_on(self) -> None:
        """Go behind everything that was read, and to where logs begin."""
        for key, known in self.known.items():
            if key not in self.positions:
                continue
            for batch in batches_of(known.records):
                self.positions[key] = batch.header.last_offset + 1

    def _request_of_session(self) -> fetch.FetchRequest:
        if not self.has_session:
            self._epoch, self._sent = FIRST, dict(self.positions)
            return self._request(self.positions, session_id=NO_SESSION, epoch=FIRST)
        changed = {key: at for key, at in self.positions.items() if self._sent.get(key) != at}
        forgotten = self._sent.keys() - self.positions.keys()
        for key in forgotten:
            self.known.pop(key, None)
        self._sent = dict(self.positions)
        return self._request(changed, session_id=self._session_id, epoch=self._epoch, forgotten=sorted(forgotten))

    def _full(self) -> fetch.FetchRequest:
        return self._request(self.positions, session_id=NO_SESSION, epoch=LAST)

    def _request(
        self, wanted: Mapping[PartitionKey, int], *, session_id: int, epoch: int, forgotten: Any = ()
    ) -> fetch.FetchRequest:
        return fetch.FetchRequest(
            max_wait_ms=0, min_bytes=0, max_bytes=1 << 22, session_id=session_id, session_epoch=epoch,
            topics=[
                fetch.FetchTopic(
                    topic_id=key.topic_id,
                    partitions=[
                        fetch.FetchPartition(partition=key.index, fetch_offset=at, partition_max_bytes=1 << 20)
                    ],
                )
                for key, at in wanted.items()
            ],
            forgotten_topics_data=[
                fetch.ForgottenTopic(topic_id=key.topic_id, partitions=[key.index]) for key in forgotten
            ],
        )  # fmt: skip


def _known_of(response: Any) -> dict[PartitionKey, Known]:
    return {
        PartitionKey(bytes(topic.topic_id), data.partition_index): Known(
            data.error_code, data.high_watermark, data.log_start_offset, bytes(data.records or b"")
        )
        for topic in response.responses
        for data in topic.partitions
    }

"""No request holds the loop for long, however much it names.

What is measured is the time of the loop's own thread, so that whatever else the machine does is not in it. It is
compared with what it takes to make messages in one go, here and now. Each API is asked for as much as it answers in a
tenth of a second, up to a third of what a request may name: what costs much is found out with little of it, and the
other way round. What `python tests/fuzz/turns.py` prints is more, and takes many minutes.
"""

from __future__ import annotations

import time

from turns import MeasuredAgent, ask, maker, measured_agent
from wide_requests import Maker, Wide, all_of

from penstock.wire.api_keys import ApiKey as K
from penstock.wire.messages.leave_group import MemberResponse

FEW, MOST, WHOLE_S, TRIES = 1_000, 30_000, 0.1, 6
LEAST_S, MADE = 0.025, 30_000
"""What a turn may always take, and otherwise as long as it takes to make so many messages."""


def in_one_go_s() -> float:
    """How long that is."""

    def once() -> float:
        began = time.thread_time()
        made = [MemberResponse(member_id="m", group_instance_id=None, error_code=number) for number in range(MADE)]
        spent_s = time.thread_time() - began
        assert len(made) == MADE
        return spent_s

    return min(once() for _ in range(5))


def too_long(agent: MeasuredAgent, makes: Maker, wide: Wide) -> str | None:
    """The longest turn that a request takes, where it is too long each time: what somebody else has left for the loop
    to do comes once. How fast the machine is changes, so that is asked after each time."""
    whole_s = ask(agent, makes.frame(wide, FEW)).whole_s
    frame = makes.frame(wide, min(MOST, int(FEW * max(WHOLE_S / whole_s, 1))))
    found = []
    for _ in range(TRIES):
        spent_s = ask(agent, frame).turn.cpu_s
        limit_s = LEAST_S if spent_s <= LEAST_S else max(LEAST_S, in_one_go_s())
        if spent_s <= limit_s:
            return None
        found.append(f"{spent_s * 1000:.0f} of {limit_s * 1000:.0f} ms")
    return f"{wide}: {', '.join(found)}"


def test_no_request_holds_the_loop() -> None:
    keys, slow = set[int](), list[str]()
    with measured_agent(allow_everyone_if_no_acl_found="true") as agent:
        makes = maker(agent)
        for wide in all_of(agent.served):
            keys.add(wide.key)
            problem = too_long(agent, makes, wide)
            if problem:
                slow.append(problem)
    assert not slow, f"turns that are too long: {'; '.join(slow)}"
    assert keys >= {K.PRODUCE, K.FETCH, K.METADATA, K.SHARE_FETCH, K.ALTER_ENVIRONMENTS}
    assert len(keys) > 55

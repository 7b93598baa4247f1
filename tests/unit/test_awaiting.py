"""What an event loop awaits: at most so many threads at a time, whatever becomes of their callers."""

from __future__ import annotations

import asyncio
import threading

from airflow_providers_secrets.lookup import awaiting
from airflow_providers_secrets.lookup.awaiting import MAX_AT_A_TIME, awaited

LONG = 60
"""Seconds after which a test that hangs is given up."""


def test_a_cancelled_caller_s_thread_keeps_its_turn_until_it_ends() -> None:
    """A trigger's own time-out cancels; a store that hangs would else collect a thread for each."""
    going_on = threading.Semaphore(0)
    begun: list[int] = []
    answer = threading.Event()

    def look_up() -> str | None:
        begun.append(1)
        going_on.release()
        assert answer.wait(LONG)
        return None

    async def scenario() -> None:
        first = [asyncio.create_task(awaited(lambda: None, look_up)) for _ in range(MAX_AT_A_TIME)]
        for _ in first:
            assert await asyncio.to_thread(going_on.acquire, timeout=LONG)
        for task in first:
            task.cancel()
        ended = await asyncio.gather(*first, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in ended)
        later = [asyncio.create_task(awaited(lambda: None, look_up)) for _ in range(3)]
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(begun) == MAX_AT_A_TIME
        answer.set()
        assert await asyncio.wait_for(asyncio.gather(*later), LONG) == [None] * 3
        assert len(begun) == MAX_AT_A_TIME + 3

    asyncio.run(scenario())


def test_who_has_waited_for_a_turn_finds_what_was_fetched_meanwhile() -> None:
    """And takes no thread for it."""
    known: list[tuple[str | None]] = []
    answer = threading.Event()

    def look_up() -> str | None:
        assert answer.wait(LONG)
        known.append(("x",))
        return "x"

    async def scenario() -> None:
        asked = [
            asyncio.create_task(awaited(lambda: known[0] if known else None, look_up)) for _ in range(MAX_AT_A_TIME + 4)
        ]
        for _ in range(10):
            await asyncio.sleep(0)
        answer.set()
        assert await asyncio.wait_for(asyncio.gather(*asked), LONG) == ["x"] * (MAX_AT_A_TIME + 4)

    asyncio.run(scenario())
    assert len(known) == MAX_AT_A_TIME


def test_no_loop_is_kept_that_is_closed() -> None:
    """A semaphore that was waited for keeps its loop."""

    async def more_than_at_a_time() -> None:
        await asyncio.gather(*(awaited(lambda: None, lambda: "x") for _ in range(MAX_AT_A_TIME + 1)))

    for _ in range(3):
        asyncio.run(more_than_at_a_time())
    assert sum(loop.is_closed() for loop in awaiting._turns) <= 1

"""Event loops and threads around lookups; each with a control that shows what the test would see."""

from __future__ import annotations

import asyncio
import threading

import pytest

from airflow_providers_secrets.errors import StoreUnavailable
from airflow_providers_secrets.testing.lookups import Waits
from tests.rigs import Rig

pytestmark = pytest.mark.each_rig_in_ci


def test_lookup_inside_a_running_loop_answers(rig: Rig) -> None:
    """Airflow's own code looks connections up in coroutines, too, and blocks the loop meanwhile."""
    rig.put(rig.path("variables", "awaited"), "x")

    async def look_up() -> list[str | None]:
        backend = rig.caching()
        in_the_loop = backend.get_variable("awaited")
        in_threads = await asyncio.gather(*(asyncio.to_thread(backend.get_variable, "awaited") for _ in range(16)))
        return [in_the_loop, *in_threads]

    assert asyncio.run(look_up()) == ["x"] * 17


def test_loop_goes_on_while_a_thread_of_its_waits_for_the_store(rig: Rig, waits: Waits) -> None:
    seen: list[bool] = []

    def look_up(loop: asyncio.AbstractEventLoop) -> None:
        def beat() -> None:
            beaten = threading.Event()
            loop.call_soon_threadsafe(beaten.set)
            seen.append(beaten.wait(30))

        waits.on_wait = beat
        with rig.fault("hang"), pytest.raises(StoreUnavailable):
            rig.backend(timeout=1.0).get_variable("x")

    async def scenario() -> None:
        await asyncio.to_thread(look_up, asyncio.get_running_loop())

    asyncio.run(scenario())
    assert seen
    assert all(seen)


def test_control_a_lookup_in_the_loop_itself_holds_it_up(ssm: Rig, waits: Waits) -> None:
    beaten = threading.Event()
    seen: list[bool] = []

    async def look_up() -> None:
        task = asyncio.ensure_future(asyncio.sleep(0, beaten.set()))  # type: ignore[func-returns-value]
        beaten.clear()
        asyncio.get_running_loop().call_soon(beaten.set)
        waits.on_wait = lambda: seen.append(beaten.wait(0.2))
        with ssm.fault("hang"), pytest.raises(StoreUnavailable):
            ssm.backend(timeout=1.0).get_variable("x")
        await task

    asyncio.run(look_up())
    assert seen == [False]


def test_cancelled_coroutine_leaves_nothing_that_hangs(rig: Rig, waits: Waits) -> None:
    rig.put(rig.path("variables", "awaited"), "x")
    waiting = threading.Event()
    waits.on_wait = waiting.set

    async def look_up() -> None:
        task = asyncio.ensure_future(asyncio.to_thread(rig.backend(timeout=1.0).get_variable, "awaited"))
        await asyncio.to_thread(waiting.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with rig.fault("hang"):
        asyncio.run(look_up())
    assert rig.backend().get_variable("awaited") == "x"

"""A lookup that an event loop awaits: from memory at once, otherwise in a thread, a bounded number at a time.

Airflow's triggerer runs all its triggers in one event loop. Nothing here blocks it: no import but of this package's
smallest modules, no store, no lock that is held while a store is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final

from airflow_providers_secrets.lookup.calls import airflows_call, overrides, own_call
from airflow_providers_secrets.lookup.forks import no_fork

MAX_AT_A_TIME: Final = 16
"""The most lookups of one event loop that run in threads; others wait for their turn, and then check the cache
again."""


Known = tuple["str | None"]
"""An answer that memory alone gives."""

_turns: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = weakref.WeakKeyDictionary()


async def connection_of(
    backend: Any, ours: type, in_memory: Callable[..., Known | None], conn_id: str, team_name: str | None
) -> Any:
    """Return the connection object for an id, as ``get_connection`` of *backend* does.

    :param ours: this package's class whose methods *backend* has, unless a subclass overrides them.
    :param in_memory: its own ``value_in_memory``.
    """
    if overrides(backend, "get_connection"):
        made = airflows_call(backend.get_connection, "conn_id")
        return await awaited(lambda: None, lambda: made(conn_id, team_name))
    text_of = own_call(backend, ours, "get_conn_value", "conn_id")
    return await awaited(
        lambda: in_memory("connections", conn_id, team_name),
        lambda: text_of(conn_id, team_name),
        lambda text: backend.deserialize_connection(conn_id, text) if text else None,
    )


async def variable_of(
    backend: Any, ours: type, in_memory: Callable[..., Known | None], key: str, team_name: str | None
) -> str | None:
    """Return the text of a variable, as ``get_variable`` of *backend* does; see :func:`connection_of`."""
    text_of = own_call(backend, ours, "get_variable", "key")
    found: str | None = await awaited(lambda: in_memory("variables", key, team_name), lambda: text_of(key, team_name))
    return found


def _as_it_is(text: str | None) -> str | None:
    return text


async def awaited(
    from_memory: Callable[[], Known | None],
    look_up: Callable[[], str | None],
    parse: Callable[[str | None], Any] = _as_it_is,
) -> Any:
    """Return what *from_memory* knows, else what *look_up* returns in a thread of its own; parsed.

    A cancelled caller returns at once; the lookup continues to its own deadline, and its answer is cached.

    :param from_memory: answers without blocking, or returns ``None`` if memory has no answer.
    :param look_up: the lookup, which runs in a thread; what it raises is raised here.
    :param parse: makes the object; the first time in a thread, since it may import much. What it raises is raised
        without its frames, which hold the text: error trackers send local variables.
    """
    failure: Exception
    try:
        return await _found(from_memory, look_up, parse)
    except Exception as error:  # noqa: BLE001  # whatever it is
        failure = error.with_traceback(None)
    raise failure


async def _found(
    from_memory: Callable[[], Known | None],
    look_up: Callable[[], str | None],
    parse: Callable[[str | None], Any],
) -> Any:
    known = from_memory()
    if known is None:
        loop = asyncio.get_running_loop()
        turns = _turns.get(loop)
        if turns is None:
            for other in [other for other in _turns if other.is_closed()]:
                del _turns[other]  # a semaphore that was waited for keeps its loop alive
            turns = _turns[loop] = asyncio.Semaphore(MAX_AT_A_TIME)
        await turns.acquire()
        give_back = turns.release
        try:
            known = from_memory()  # another caller may have fetched it meanwhile
            if known is None:
                result = in_a_thread(lambda: parse(look_up()), give_back)
                give_back = _nothing  # the thread does, even if its caller is cancelled and does not wait for it
                return await result
        finally:
            give_back()
    return parse(known[0])


def _nothing() -> None:
    pass


def in_a_thread(find: Callable[[], Any], ended: Callable[[], None] = _nothing) -> asyncio.Future[Any]:
    """Run *find* in a daemon thread of its own, and return its future: a loop that ends does not wait for a store.

    :param ended: called in the event loop once the thread has finished, whether or not anyone still waits.
    """
    with no_fork():
        from airflow_providers_secrets.lookup.deadline import DeadlineCall

    loop = asyncio.get_running_loop()
    result: asyncio.Future[Any] = loop.create_future()

    def work(_: threading.Event) -> None:
        answer: Any = None
        failure: BaseException | None = None
        try:
            answer = find()
        except BaseException as error:  # noqa: BLE001  # whatever it is, the awaiting side must not wait for ever
            failure = error.with_traceback(None)
        with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
            loop.call_soon_threadsafe(_settle, result, answer, failure)
            loop.call_soon_threadsafe(ended)

    # No thread waits for this call, so its seconds do not matter: the lookup keeps its own deadline.
    DeadlineCall(work, threading.TIMEOUT_MAX)
    return result


def _settle(result: asyncio.Future[Any], answer: Any, failure: BaseException | None) -> None:
    if result.done():  # cancelled
        return
    if failure is None:
        result.set_result(answer)
    else:
        result.set_exception(failure)

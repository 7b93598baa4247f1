"""What happens around a fork: the parent loads what children will need, and no child finds a lock held.

Airflow parses every DAG file and runs every task in a fork of a long-lived process that looks little up itself. So a
process that has built a backend imports, just before its first fork, whatever a lookup needs: each child inherits that,
instead of importing it again and again.

The child of a fork has the forking thread alone, and every lock as it was. So it would wait for ever

- for a module that another thread was importing, once it imports it too; and
- in its first TLS context, where a thread that had spoken TLS was just ending: the last thing it does, behind
  Python's back, is to free what OpenSSL kept for it, behind one of OpenSSL's global locks.

Airflow forks right after lookups, and every lookup has a thread. So a fork waits for both: some
milliseconds, as a rule.

An exception that is raised in an at-fork hook is printed and lost (``os.register_at_fork``). A signal's handler may
raise one at any moment, ``AirflowTaskTimeout`` for example; so handlers wait until the fork is over, from the first
microseconds of the first hook to the last of the last.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _thread
import contextlib
import functools
import gc
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from airflow_providers_secrets.lookup.config import StoreConfig

log = logging.getLogger(__name__)

LONGEST_WAIT: Final = 1.0
"""Seconds that a fork waits at most for what other threads do, and an import at most for a fork."""

WHOLE_HEAP: Final = 10_000
"""From how many frozen objects on a process is taken to have frozen its heap. Airflow's has more than 100,000; Python
3.12 freezes 375 by itself when it starts."""

ONE_TASK_MODULES: Final = frozenset({"airflow.sdk.execution_time.execute_workload"})
"""The main modules of processes that run one task in one child, and end: the pods of a KubernetesExecutor. What such a
process loads, no second child inherits, so a heavy SDK is left to the one that may not even need it."""

ONE_TASK_COMMAND: Final = ["tasks", "run"]
"""The same, as Airflow 2's command line has it."""

_gate = threading.Condition()
_busy: dict[int, int] = {}
"""How often each thread is inside :func:`no_fork`."""
_forking: set[int] = set()
"""The threads that fork."""
_ending: deque[int] = deque(maxlen=64)
_collector_pauses = 0
_unprepared: dict[bytes, StoreConfig] = {}
_worth_it_for_one: set[bytes] = set()
_prepared: set[bytes] = set()

before_waiting: list[Callable[[], None]] = []
"""What makes threads end, called before a fork waits for them."""
in_child: list[Callable[[], None]] = []
"""What forgets, in a child, what is its parent's alone. A signal's handler does not run before they are through."""


@contextlib.contextmanager
def no_fork() -> Iterator[None]:
    """Let no fork of another thread happen meanwhile, unless this takes longer than :data:`LONGEST_WAIT`.

    For imports and data files, and for what a library does that a fork must not fall into (:attr:`Store.forks_wait`);
    never around another lock. Threads do not wait for each other here, so that two that import each other's modules
    cannot wait for ever.
    """
    me = threading.get_ident()
    with _gate:
        if _forking - {me}:
            _gate.wait_for(lambda: not _forking - {me}, LONGEST_WAIT)
        _busy[me] = _busy.get(me, 0) + 1
    try:
        yield
    finally:
        with _gate:
            _busy[me] -= 1
            if not _busy[me]:
                del _busy[me]
                _gate.notify_all()


def holds_forks() -> bool:
    """Tell whether the calling thread is inside :func:`no_fork`."""
    return threading.get_ident() in _busy


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Allocate what stays, without collections of Airflow's whole heap, which would cost more than the work itself."""
    global _collector_pauses  # noqa: PLW0603
    if not gc.isenabled():
        yield
        return
    _collector_pauses += 1
    try:
        gc.disable()
        yield
        _let_grow_old()
    finally:
        _collector_pauses -= 1
        gc.enable()


def _let_grow_old() -> None:
    """Have what is here now, a moment old or not, walked by collections of everything alone.

    Modules and data files stay as long as the process. To find that out, a collection of what is young would walk them
    in the parent, and another one in each child, which copies each page of memory that it walks.
    """
    # Airflow's DAG processor freezes its heap for its children, and what came since is to be as far out of the way.
    frozen = gc.get_freeze_count() >= WHOLE_HEAP  # some milliseconds where it is
    try:
        gc.freeze()
    finally:
        if not frozen:
            gc.unfreeze()  # to the oldest generation


def thread_ending(native_id: int) -> None:
    """Note that a thread is about to end."""
    _ending.append(native_id)


def let_threads_end() -> None:
    """Wait until the threads that were about to end have ended; where the system does not tell, not at all."""
    latest = time.monotonic() + LONGEST_WAIT
    while True:
        try:
            thread = f"/proc/self/task/{_ending.popleft()}"
        except IndexError:  # the last one; or another thread that forks took it
            return
        while os.path.exists(thread) and time.monotonic() < latest:  # noqa: PTH110  # pathlib would be imported for it
            time.sleep(0.0002)


def prepare_before_fork(config: StoreConfig, *, also_for_one: bool) -> None:
    """Have what lookups of *config* need loaded just before this process's next fork; until then it is noted only.

    :param also_for_one: also where that fork is for one task alone, which may look nothing up.
    """
    if config.fingerprint not in _prepared:
        _unprepared[config.fingerprint] = config
        if also_for_one:
            _worth_it_for_one.add(config.fingerprint)


def _prepare() -> None:
    """Load what children will need: modules and data files, no socket, thread, login or network."""
    with collector_paused():
        # Its own import is the first thing that children inherit.
        from airflow_providers_secrets.lookup.resolve import prepare

        for_many = _forks_for_many()
        for fingerprint in list(_unprepared if for_many else _worth_it_for_one):
            config = _unprepared.pop(fingerprint, None)
            if config is None:
                continue
            _prepared.add(fingerprint)
            try:
                prepare(config, for_many=for_many)
            except Exception as error:  # noqa: BLE001  # the lookup that needs it will say it better
                log.debug("%s: not loaded before a fork (%s).", config.title, type(error).__name__)
    if not gc.isenabled():  # children may turn theirs on
        _let_grow_old()


def _forks_for_many() -> bool:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return getattr(spec, "name", None) not in ONE_TASK_MODULES and sys.argv[1:3] != ONE_TASK_COMMAND


# The hooks.


def _before() -> None:
    me = threading.get_ident()
    runs_handlers = me == threading.main_thread().ident  # no other one does
    try:
        if runs_handlers:
            _deferrals.append(_Deferral())
            _deferrals[-1].begin()
    finally:
        if _unprepared and (_worth_it_for_one or _forks_for_many()):
            _prepare()
        if runs_handlers:
            _register_last_hook()
        with _gate:
            _forking.add(me)
            _gate.wait_for(lambda: not _busy.keys() - {me}, LONGEST_WAIT)
        for end in before_waiting:
            end()
        let_threads_end()


def _after_in_parent() -> None:
    me = threading.get_ident()
    with _gate:
        _forking.discard(me)
        _gate.notify_all()
    if _deferrals and me == threading.main_thread().ident:
        _deferrals.pop().end()


def _after_in_child() -> None:
    global _gate, _collector_pauses  # noqa: PLW0603
    _gate = threading.Condition()
    _forking.clear()
    for other in _busy.keys() - {threading.get_ident()}:  # an import that forks goes on here, too
        del _busy[other]
    _ending.clear()
    for forget in in_child:
        forget()
    if _collector_pauses:
        # The thread that paused it does not exist here.
        _collector_pauses = 0
        gc.enable()
    while _deferrals:  # also of a main thread that was about to fork when this one did
        _deferrals.pop().end()


class _Deferral:
    """Stands in for every handler of a signal during a fork, and notes the signals that come.

    Blocking signals would not do: one that another thread takes is handled in the main thread all the same. And the
    functions of :mod:`signal` make enums of what they return: 50 microseconds more that a signal could fall into.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {}
        self._came: dict[int, list[int]] = {}
        """By process: what came to the parent is not the child's."""

    def __call__(self, number: int, _: object) -> None:
        self._came.setdefault(os.getpid(), []).append(number)

    def begin(self) -> None:
        """Replace the handlers, but for those of asyncio's loops: they do nothing, and their pipes are told."""
        found = ((number, _signal.getsignal(number)) for number in SIGNALS)
        handlers = {number: handler for number, handler in found if callable(handler) and not _is_of_a_loop(handler)}
        self._handlers = handlers  # before the last is replaced, another one may raise
        for number in handlers:
            _signal.signal(number, self)

    def end(self) -> None:
        """Have the signals that came raised by :data:`_raise_noted`, and put the handlers back."""
        came = self._came.setdefault(os.getpid(), [])
        interrupt_main: Any = _thread.interrupt_main  # which takes plain numbers, too
        _raise_noted.__setstate__((any, (map(interrupt_main, came),), {}, None))
        self._put_back()

    def _put_back(self) -> None:
        try:
            for number, handler in self._handlers.items():
                if _signal.getsignal(number) is self:
                    _signal.signal(number, handler)
        except BaseException:
            self._put_back()  # one that is back has raised: the others must be back, too
            raise


def _is_of_a_loop(handler: Any) -> bool:
    return bool(getattr(handler, "__module__", None) == "asyncio.unix_events")


SIGNALS: Final = tuple(_signal.valid_signals())

_deferrals: list[_Deferral] = []
"""Of the main thread's forks: more than one where an import before a fork forks."""

_raise_noted: Any = functools.partial(any, ())
"""The last hook, no Python code: a handler runs before the next bytecode, which would be inside a hook that is."""


@functools.cache
def _register_last_hook() -> None:
    """At the first fork, so that it comes after the hooks of all modules that were imported until or for it."""
    os.register_at_fork(after_in_parent=_raise_noted, after_in_child=_raise_noted)


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)

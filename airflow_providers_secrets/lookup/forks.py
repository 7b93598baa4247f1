"""What happens around a fork: the parent loads what children will need, and no child finds a lock held.

Airflow parses every DAG file and runs every task in a fork of a long-lived process that makes few lookups itself. So a
process that has built a backend imports, just before its first fork, whatever a lookup needs: each child inherits that,
instead of importing it again and again.

A forked child has only the forking thread, and every lock in the state that it had. So it would wait for ever

- for a module that another thread was importing, once the child imports it too; and
- in its first TLS context, if a thread that had used TLS was just ending: the last thing such a thread does, without
  Python's knowledge, is to free OpenSSL's data for it, under one of OpenSSL's global locks.

Airflow forks right after lookups, and every lookup has a thread. So a fork waits for both, usually some milliseconds.

An exception that is raised in an at-fork hook is printed and lost (``os.register_at_fork``). A signal handler may raise
one at any moment, ``AirflowTaskTimeout`` for example; so handlers are held back until the fork is over, from the first
microseconds of the first hook to the last ones of the last hook.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _thread
import concurrent.futures.thread  # noqa: F401  # its hooks are a pair: imported between them, it would print an error
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
"""The most seconds that a fork waits for what other threads do, and that an import waits for a fork."""

WHOLE_HEAP: Final = 10_000
"""The number of frozen objects from which a process counts as having frozen its heap. Airflow's has more than 100,000;
Python 3.12 freezes 375 by itself when it starts."""

ONE_TASK_MODULES: Final = frozenset({"airflow.sdk.execution_time.execute_workload"})
"""The main modules of processes that run one task in one child, and then end: the pods of a KubernetesExecutor. No
second child inherits what such a process loads, so a heavy SDK is left to the only child, which may not need it."""

ONE_TASK_COMMAND: Final = ["tasks", "run"]
"""The same for Airflow 2, as it stands on the command line."""

_gate = threading.Condition()
_busy: dict[int, int] = {}
"""How many times each thread is inside :func:`no_fork`."""
_forking: set[int] = set()
"""The threads that are forking."""
_ending: deque[int] = deque(maxlen=64)
_collector_pauses = 0
_unprepared: dict[bytes, StoreConfig] = {}
_worth_it_for_one: set[bytes] = set()
_prepared: set[bytes] = set()

before_waiting: list[Callable[[], None]] = []
"""Functions that make threads end, called before a fork waits for them."""
in_child: list[Callable[[], None]] = []
"""Functions that drop, in a child, what belongs to its parent alone. No signal handler runs before they are done."""


@contextlib.contextmanager
def no_fork() -> Iterator[None]:
    """Keep other threads from forking meanwhile, unless this takes longer than :data:`LONGEST_WAIT`.

    For imports and data files, and for library calls that no fork may interrupt (:attr:`Store.forks_wait`); never
    around another lock. Threads do not wait for each other here, so that two that import each other's modules cannot
    deadlock.
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
    """Return whether the calling thread is inside :func:`no_fork`."""
    return threading.get_ident() in _busy


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Allocate long-lived objects without collections of Airflow's whole heap: they would cost more than the work."""
    global _collector_pauses  # noqa: PLW0603
    if not gc.isenabled():
        yield
        return
    _collector_pauses += 1
    try:
        gc.disable()
        young = gc.get_count()[0]
        yield
        # In a child that inherits everything, nothing is worth it.
        if gc.get_count()[0] - young > gc.get_threshold()[0]:
            _let_grow_old()
    finally:
        _collector_pauses -= 1
        gc.enable()


def _let_grow_old() -> None:
    """Move all present objects, however young, to where only full collections walk them.

    Modules and data files live as long as the process. To find that out, a young collection would walk them in the
    parent, and another one in each child, which copies each page of memory that it walks.
    """
    # Airflow's DAG processor freezes its heap for its children, and what came since must be as far out of the way.
    frozen = gc.get_freeze_count() >= WHOLE_HEAP  # takes 12 ms and more if it is
    try:
        gc.freeze()
    finally:
        if not frozen:
            gc.unfreeze()  # to the oldest generation


def thread_ending(native_id: int) -> None:
    """Record that a thread is about to end."""
    _ending.append(native_id)


def let_threads_end() -> None:
    """Wait until the threads that were about to end have ended; return at once if the system does not tell.

    The calling thread is not waited for: with gevent, every greenlet has its number.
    """
    latest = time.monotonic() + LONGEST_WAIT
    me = threading.get_native_id()
    while True:
        try:
            ending = _ending.popleft()
        except IndexError:  # that was the last one, or another forking thread took it
            return
        thread = f"/proc/self/task/{ending}"
        while ending != me and os.path.exists(thread) and time.monotonic() < latest:  # noqa: PTH110  # pathlib would be imported for it
            time.sleep(0.0002)


def prepare_before_fork(config: StoreConfig, *, also_for_one: bool) -> None:
    """Load what lookups of *config* need just before this process's next fork; until then, only record it.

    :param also_for_one: also if that fork is for one task alone, which may look nothing up.
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
        if for_many:  # the supervisor of one task has built it by now
            _with_backend_of_workers()
        for fingerprint in list(_unprepared if for_many else _worth_it_for_one):
            config = _unprepared.pop(fingerprint, None)
            if config is None:
                continue
            _prepared.add(fingerprint)
            try:
                prepare(config, for_many=for_many)
            except Exception as error:  # noqa: BLE001  # the lookup that needs it will report it better
                log.debug("%s: not loaded before a fork (%s).", config.title, type(error).__name__)
    if not gc.isenabled():  # children may turn theirs on
        _let_grow_old()


def _with_backend_of_workers() -> None:
    from airflow_providers_secrets.lookup.workers import build_backend_of_workers

    try:
        build_backend_of_workers()
    except Exception as error:  # noqa: BLE001  # whatever is wrong with it, the children will report
        log.debug("The backend of [workers] was not built before a fork (%s).", type(error).__name__)


def _forks_for_many() -> bool:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return getattr(spec, "name", None) not in ONE_TASK_MODULES and sys.argv[1:3] != ONE_TASK_COMMAND


# The hooks.


def _before() -> None:
    me = threading.get_ident()
    runs_handlers = me == threading.main_thread().ident  # no other thread does
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
    for other in _busy.keys() - {threading.get_ident()}:  # an import that forks continues here, too
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
    """Stands in for every signal handler during a fork, and records the signals that arrive.

    Blocking signals would not suffice: one that another thread receives is handled in the main thread all the same. The
    functions of :mod:`signal` are not used, since they make enums of what they return: 50 more microseconds in which a
    signal could arrive.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {}
        self._came: dict[int, list[int]] = {}
        """By process id: what the parent received is not the child's."""

    def __call__(self, number: int, _: object) -> None:
        self._came.setdefault(os.getpid(), []).append(number)

    def begin(self) -> None:
        """Replace the handlers, except those of asyncio's loops, which do nothing: a pipe tells the loops."""
        found = ((number, _signal.getsignal(number)) for number in SIGNALS)
        handlers = {number: handler for number, handler in found if callable(handler) and not _is_of_a_loop(handler)}
        self._handlers = handlers  # first, since one that is not replaced yet may raise
        for number in handlers:
            _signal.signal(number, self)

    def end(self) -> None:
        """Let :data:`_raise_noted` raise the signals that arrived, and restore the handlers."""
        came = self._came.setdefault(os.getpid(), [])
        interrupt_main: Any = _thread.interrupt_main  # which accepts plain numbers, too
        _raise_noted.__setstate__((any, (map(interrupt_main, came),), {}, None))
        self._put_back()

    def _put_back(self) -> None:
        try:
            for number, handler in self._handlers.items():
                if _signal.getsignal(number) is self:
                    _signal.signal(number, handler)
        except BaseException:
            self._put_back()  # a restored one has raised: the others must be restored, too
            raise


def _is_of_a_loop(handler: Any) -> bool:
    return bool(getattr(handler, "__module__", None) == "asyncio.unix_events")


SIGNALS: Final = tuple(_signal.valid_signals())

_deferrals: list[_Deferral] = []
"""Those of the main thread's forks: more than one if an import before a fork forks."""

_raise_noted: Any = functools.partial(any, ())
"""The last hook, not Python code: a handler runs before the next bytecode, which would still be inside a Python
hook."""


@functools.cache
def _register_last_hook() -> None:
    """Register it at the first fork, so that it runs after the hooks of all modules imported before or for that."""
    os.register_at_fork(after_in_parent=_raise_noted, after_in_child=_raise_noted)


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)

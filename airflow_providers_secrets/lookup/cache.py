"""What a process caches of a store: values, proven absences, failures, and how long each is valid.

Nothing here knows of a store, a network or Airflow. Time is measured by :data:`clock`.
"""

from __future__ import annotations

import contextlib
import copy
import random
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from airflow_providers_secrets.errors import LookupFailed
from airflow_providers_secrets.lookup.deadline import waited

clock = time.monotonic
"""Monotonic seconds."""

MAX_BYTES: Final = 16 * 1024 * 1024
"""The most bytes of what the store sent that one cache holds; the oldest are evicted first. What was parsed of that is
not counted: it takes up to twice as much again."""

JITTER: Final = (0.8, 1.0)
"""The range of the random factor by which each entry's time to live is multiplied, so that processes started together
do not keep asking at the same time."""

FIRST_PAUSE: Final = 2.0
"""Seconds for which a name is not asked for again after the store gave no answer; doubled by each further failure."""

LONGEST_PAUSE: Final = 60.0
"""The upper bound, in seconds, of :data:`FIRST_PAUSE` as it doubles."""


class Entry:
    """What a store said about one name.

    :param text: the secret's text; ``None`` if the store proved that there is none.
    :param fresh_until: when it expires, by :data:`clock`.
    :param at: when the store was asked, by :data:`clock`; ``None`` for now.
    """

    __slots__ = ("at", "decoded", "fresh_until", "is_unusable", "text")

    def __init__(self, text: str | None, fresh_until: float, at: float | None = None) -> None:
        self.text = text
        self.fresh_until = fresh_until
        self.at = clock() if at is None else at
        self.decoded: dict[str, Any] = {}
        """The decoded text by kind, so that a hit does not decode again."""
        self.is_unusable = False
        """Whether the text could not be decoded: the entry is valid no longer than an absence."""

    def __repr__(self) -> str:
        return f"Entry({'absent' if self.text is None else 'present'})"


def jittered(seconds: float) -> float:
    """Return *seconds* times a random factor within :data:`JITTER`."""
    return seconds * random.uniform(*JITTER)  # noqa: S311  # spreads load, hides nothing


class Lifetimes:  # not a NamedTuple: creating such a class takes longer than importing a module
    """How long answers are valid, in seconds, and how many are kept.

    :param ttl: of a value. Zero turns everything here off: each lookup asks the store.
    :param negative_ttl: of an absence, a denial, a revoked or unusable secret.
    :param max_stale: how long an expired value may be served while the store gives no answer.
    :param size: the maximum number of entries.
    """

    __slots__ = ("max_stale", "negative_ttl", "size", "ttl")

    def __init__(self, ttl: float, negative_ttl: float, max_stale: float, size: int) -> None:
        self.ttl = ttl
        self.negative_ttl = negative_ttl
        self.max_stale = max_stale
        self.size = size

    def of(self, text: str | None) -> float:
        """Return the seconds for which an answer is valid."""
        return self.negative_ttl if text is None else self.ttl

    @property
    def listing(self) -> float:
        """The seconds for which a listing is valid: it gives values and proves absences."""
        return min(self.ttl, self.negative_ttl)


class Breaker:
    """Notices that a store is down, and lets one caller at a time find out whether it still is.

    It takes no lock: its owner does.
    """

    FAILURES: Final = 5
    """How many calls in a row must have had no answer."""
    WITHIN: Final = 30.0
    """The most seconds between two failures that count as consecutive. (Five calls that hang for ten seconds each would
    not all fall within thirty.)"""
    PAUSE: Final = 15.0
    """Seconds between two attempts while the store counts as down, before :attr:`PAUSE_JITTER`."""
    PAUSE_JITTER: Final = (0.8, 1.2)

    def __init__(self) -> None:
        self._failures = 0
        self._last = 0.0
        self._probe_at: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether the store counts as down."""
        return self._probe_at is not None

    def lets_through(self) -> bool:
        """Return whether the store may be asked now; a caller let through an open breaker is its probe."""
        if self._probe_at is None:
            return True
        if clock() < self._probe_at:
            return False
        # This restarts the pause: the next caller waits for this probe's result, or for that pause.
        self._open()
        return True

    def failed(self) -> None:
        """Record that the store gave no answer."""
        before, self._last = self._last, clock()
        self._failures = self._failures + 1 if self._last - before <= self.WITHIN else 1
        if self.is_open or self._failures >= self.FAILURES:
            self._open()

    def answered(self) -> bool:
        """Record that the store answered, whatever it said, and return whether it had counted as down."""
        was_open, self._probe_at = self.is_open, None
        self._failures = 0
        return was_open

    def _open(self) -> None:
        self._probe_at = clock() + self.PAUSE * random.uniform(*self.PAUSE_JITTER)  # noqa: S311


class _InOrder(OrderedDict[str, Any]):
    """A dictionary of limited size, which evicts what was put in first.

    So eviction is by age. Reading moves nothing, so that a hit needs no lock; writers hold one.

    :param room: what all values may take together.
    :param takes: returns what one value takes.
    """

    def __init__(self, room: int, takes: Callable[[Any], int]) -> None:
        super().__init__()
        self._room = room
        self._takes = takes
        self._taken = 0

    def put(self, name: str, value: Any) -> None:
        """Put *value* last, in the place of an older one of that *name*."""
        self.drop(name)
        self._taken += self._takes(value)
        while self and self._taken > self._room:
            self._taken -= self._takes(self.popitem(last=False)[1])
        self[name] = value

    def drop(self, name: str) -> None:
        """Remove the value of *name*, if there is one."""
        dropped = self.pop(name, None)
        if dropped is not None:
            self._taken -= self._takes(dropped)

    def clear(self) -> None:
        """Remove everything."""
        super().clear()
        self._taken = 0


class _Failure:
    __slots__ = ("error", "pause", "until")

    def __init__(self, error: LookupFailed, until: float, pause: float) -> None:
        self.error = error
        self.until = until
        self.pause = pause


class _Flight:
    """One caller asks; others that want the same name meanwhile wait for the result.

    :param deadline: when its caller stops waiting for the store, by ``time.monotonic``.
    """

    __slots__ = ("deadline", "done", "owner", "result")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.owner = threading.get_ident()
        self.done = threading.Event()
        self.result: Entry | LookupFailed | None = None


class ProcessCache:
    """Entries, failures and flights of one store in one process. Any number of threads may use it.

    Does not outlive a fork: its owner makes a new one in the child.

    :param lifetimes: how long answers are valid.
    :param refused: makes the error for a name that the open breaker refuses.
    """

    def __init__(self, lifetimes: Lifetimes, refused: Callable[[str], LookupFailed]) -> None:
        self._lifetimes = lifetimes
        self._refused = refused
        # An entry takes at least its share of the room, which also bounds the number of entries.
        share = max(1, MAX_BYTES // lifetimes.size)
        self._entries = _InOrder(share * lifetimes.size, lambda entry: max(share, sys.getsizeof(entry.text)))
        self._failures = _InOrder(lifetimes.size, lambda _: 1)
        self._forgotten = _InOrder(lifetimes.size, lambda _: 1)
        self._flights: dict[str, _Flight] = {}
        self._breaker = Breaker()
        self._lock = threading.RLock()  # reentrant: a signal handler may start a lookup

    @property
    def size(self) -> int:
        """How many answers are kept, including expired ones that may still be served stale."""
        return len(self._entries)

    @property
    def store_counts_as_down(self) -> bool:
        """Whether so many calls had no answer that only an occasional one is tried."""
        return self._breaker.is_open

    def fresh(self, name: str) -> Entry | None:
        """Return the entry of *name* if it is still valid."""
        try:
            entry: Entry = self._entries[name]  # faster than its get(), if it is there
        except KeyError:
            return None
        return entry if clock() < entry.fresh_until else None

    def stale(self, name: str) -> Entry | None:
        """Return the value of *name* that may be served, expired or not, while the store gives no answer."""
        entry: Entry | None = self._entries.get(name)
        if entry is None or entry.text is None:
            return None
        return entry if clock() < entry.fresh_until + self._lifetimes.max_stale else None

    def was_absent(self, name: str) -> bool:
        """Return whether the store last said that *name* is absent, no longer ago than a stale value may be."""
        entry: Entry | None = self._entries.get(name)
        return entry is not None and entry.text is None and clock() < entry.fresh_until + self._lifetimes.max_stale

    def knows_newer(self, name: str, at: float) -> bool:
        """Return whether the store gave an entry of *name* after *at*, even if it has expired, or a denial."""
        entry: Entry | None = self._entries.get(name)
        return (entry is not None and entry.at > at) or self._forgotten.get(name, at) > at

    def is_unusable(self, name: str, text: str | None) -> bool:
        """Return whether *text* is the cached text of *name* and could not be decoded."""
        entry: Entry | None = self._entries.get(name)
        return entry is not None and entry.is_unusable and entry.text == text

    def single_flight(self, name: str, find: Callable[[], Entry], timeout: float) -> Entry:
        """Call *find* for a name that is not fresh, in one thread only; all others wait for its result.

        :param timeout: seconds to wait for another thread's result.
        :raises LookupFailed: what *find* raised, in the waiting threads as well.
        :raises TimeoutError: if the other thread has no result in time.
        """
        deadline = time.monotonic() + timeout
        flight = _Flight(deadline)
        try:
            # A thread that left its flight by an exception from a signal has no result: a waiting one takes over.
            while (other := self._flights.setdefault(name, flight)) is not flight:
                if other.owner == flight.owner or other.deadline <= time.monotonic():
                    # Either this is a signal handler that interrupted the flight, and cannot wait for it; or a handler
                    # raised just before the flight ended, and left it here.
                    if self._flights.get(name) is other:
                        self._flights.pop(name, None)
                    continue
                if not waited(other.done, deadline):
                    raise TimeoutError
                if isinstance(other.result, Entry):
                    return other.result
                if other.result is not None:
                    raise copy.copy(other.result)
            try:
                # Another flight may have ended between this caller's look and the start of its own.
                flight.result = self.fresh(name) or find()
            except LookupFailed as error:
                flight.result = copy.copy(error)
                raise
            return flight.result
        finally:
            if self._flights.get(name) is flight:
                self._flights.pop(name, None)
            flight.done.set()

    def remembered(self, name: str) -> LookupFailed | None:
        """Return the recent failure of *name*, to be raised instead of asking the store again, or ``None``."""
        with self._lock:
            failure: _Failure | None = self._failures.get(name)
            return copy.copy(failure.error) if failure is not None and clock() < failure.until else None

    def refusal(self, name: str) -> LookupFailed | None:
        """Return the error to raise instead of asking the store again so soon, or ``None`` if it may be asked."""
        with self._lock:
            return self.remembered(name) or (None if self._breaker.lets_through() else self._refused(name))

    def keep(self, name: str, entry: Entry) -> Entry:
        """Record what was said about *name*, by the store or by another process's cache."""
        entry.is_unusable = self.is_unusable(name, entry.text)
        with self._lock:
            self._entries.put(name, entry)
        return entry

    def stay(self, name: str) -> None:
        """Make the entry of *name* the last to be evicted."""
        with self._lock, contextlib.suppress(KeyError):
            self._entries.move_to_end(name)

    def forget(self, name: str, at: float | None = None) -> None:
        """Invalidate what was said about *name* before *at*; ``None`` for now."""
        with self._lock:
            self._entries.drop(name)
            self._forgotten.put(name, clock() if at is None else at)

    def clear(self) -> None:
        """Drop everything. Takes no lock: a forked child calls it, and its parent may have held the lock."""
        self._entries.clear()
        self._failures.clear()
        self._forgotten.clear()

    def answered(self, name: str) -> None:
        """Record that the store itself has just answered for *name*."""
        with self._lock:
            self._failures.drop(name)
            self._close_breaker()

    def note_failure(self, name: str, error: LookupFailed) -> None:
        """Record that a lookup of *name* ended in *error*."""
        with self._lock:
            if not error.store_has_spoken:
                before = self._failures.get(name)
                pause = min(2 * before.pause, LONGEST_PAUSE) if before and before.pause else FIRST_PAUSE
                self._failures.put(name, _Failure(copy.copy(error), clock() + pause, pause))
                if not error.on_the_way:  # its message must not give way to one about an outage
                    self._breaker.failed()
                return
            # What the store gave before must not be served again.
            self.forget(name)
            self._close_breaker()
            if ttl := self._lifetimes.negative_ttl:
                self._failures.put(name, _Failure(copy.copy(error), clock() + jittered(ttl), 0.0))

    def _close_breaker(self) -> None:
        if self._breaker.answered():
            for name in [name for name, failure in self._failures.items() if failure.pause]:
                self._failures.drop(name)

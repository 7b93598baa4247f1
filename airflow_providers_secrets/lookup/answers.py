"""What can be answered for a store's names, in this order: memory, the shared cache, a listing, the store.

Airflow builds a backend many times over in a process and forks freely. So whatever is expensive or holds a
socket, a thread or a lock is reached from here, from one :class:`Answers` for each :class:`.StoreConfig`, found by its
fingerprint and made anew in every forked child.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from airflow_providers_secrets.errors import LookupFailed, NoSharedKeyError
from airflow_providers_secrets.lookup import cache
from airflow_providers_secrets.lookup.access import StoreAccess, late
from airflow_providers_secrets.lookup.cache import Breaker, Entry, Lifetimes, ProcessCache, jittered
from airflow_providers_secrets.lookup.config import StoreConfig
from airflow_providers_secrets.lookup.forks import in_child, no_fork
from airflow_providers_secrets.lookup.metrics import Counts
from airflow_providers_secrets.lookup.notices import warn
from airflow_providers_secrets.lookup.outcomes import TOO_MUCH
from airflow_providers_secrets.stores.base import Outcome

if TYPE_CHECKING:
    from airflow_providers_secrets.lookup.plan import Kind
    from airflow_providers_secrets.lookup.shared_cache import SharedCache

LISTING: Final = "\0listing\0"
"""Stands before the prefix whose listing an entry holds; no store has such a name."""

MAX_LISTING_BYTES: Final = cache.MAX_BYTES // 2
"""The most that a listing takes of a process's cache."""

SHORTEST: Final = 0.01
"""The fewest seconds that a call gets when the deadline is near."""

JUST_NOW: Final = 1.0
"""Seconds for which an answer is too new to be asked for again in the same lookup."""

SHARED: Final = "airflow_providers_secrets.lookup.shared_answers"
"""Where the class of answers is that are shared."""

NOT_CACHED: Final = "not cached"
"""What :meth:`Answers.cached` says of a name that a cache does not hold."""

Ask = Callable[[str, float], str | None]


class Answers:
    """Answers for one store in one process, which shares none with others. Any number of threads may use it.

    :param config: which store, and how long what it said counts.
    """

    def __init__(self, config: StoreConfig) -> None:
        self.config = config
        self.access = StoreAccess(config)
        """The way to the store itself, past every cache."""
        self.counts = Counts(config.slug)
        """How this process's lookups ended."""
        self._lifetimes: Lifetimes = config.lifetimes
        self._cache = ProcessCache(self._lifetimes, self._broken)
        self.is_inherited = False
        """Whether a parent made it, and this process has not yet looked whether that still fits."""

    def read(self, name: str, prefix: str | None = None, deadline: float | None = None) -> Entry:
        """Return what the store says of *name*, or said within the time to live.

        :param prefix: *name* begins with it, and may be answered from a listing of all names that do.
        :param deadline: when the lookup ends that this is a part of, by ``time.monotonic``; ``None`` for ``timeout``
            seconds from now.
        :raises LookupFailed: where there is neither a text nor a proof that there is none, at the latest at the
            deadline.
        :raises ConfigurationError: where the shared cache cannot be used and the user must fix it.
        :raises MissingDependencyError: where an SDK is not installed.
        """
        entry = self._cache.fresh(name)
        if entry is None:
            return self._refresh(name, prefix, self.deadline() if deadline is None else deadline)
        if entry.text is None:
            self.counts.negative_hits += 1
        else:
            self.counts.hits += 1
        return entry

    def deadline(self) -> float:
        """Return when a lookup ends that starts now."""
        return time.monotonic() + self.config.timeout

    def was_absent(self, name: str) -> bool:
        """Tell whether *name* was absent when the store last spoke of it, no longer ago than a value may stand in."""
        return self._cache.was_absent(name)

    def forget(self, name: str, prefix: str | None) -> None:  # noqa: ARG002  # for who has more than this
        """Let nothing count any more that was said of *name*, which has been written or deleted since."""
        self._cache.forget(name)

    def note_unusable(self, entry: Entry) -> bool:
        """Have *entry*, whose text cannot be decoded, count no longer than an absence.

        Returns whether its time is over by that: another process left it, and the store may have something better.
        """
        now, ttl = cache.clock(), self._lifetimes.negative_ttl
        counted = now < entry.fresh_until
        if not entry.is_unusable:
            entry.is_unusable = True
            entry.fresh_until = min(entry.fresh_until, entry.at + jittered(ttl))
        return counted and now - entry.at >= max(ttl, JUST_NOW)

    def decoded_in_memory(self, kind: Kind, names: Iterable[str]) -> tuple[str | None] | None:
        """Return the decoded text of the first of *names* that has one, or that all are absent, from memory alone.

        ``None`` where memory does not tell, or holds a text that was never decoded.
        """
        absent = 0
        for name in names:
            entry = self._cache.fresh(name)
            if entry is None:
                return None
            if entry.text is None:
                absent += 1
                continue
            decoded: str | None = entry.decoded.get(kind)
            if decoded is None:
                return None
            self.counts.hits += 1
            self.counts.negative_hits += absent
            return (decoded,)
        self.counts.negative_hits += absent
        return (None,)

    def _refresh(self, name: str, prefix: str | None, deadline: float) -> Entry:
        try:
            if not self._lifetimes.ttl:
                return Entry(self._timed_call(self.access.ask, name, deadline), 0.0)
            if prefix is not None and (entry := self._from_listing(name, prefix, deadline)):
                return entry
            return self._fresh_or_stale(name, prefix, deadline)
        finally:
            self.counts.tell()

    def _timed_call(self, ask: Ask, name: str, deadline: float) -> str | None:
        """Call the store, and count the call."""
        started = time.monotonic()
        failure: LookupFailed | None = None
        try:
            return ask(name, max(SHORTEST, deadline - started))
        except LookupFailed as error:
            failure = error
            raise
        finally:
            self.counts.called(time.monotonic() - started, failure)

    def _from_listing(self, name: str, prefix: str, deadline: float) -> Entry | None:
        """Answer *name* from the listing of *prefix*, or return ``None`` where only a read of its own will."""

        def ask_for_all(_: str, within: float) -> str:
            text = json.dumps(self.access.ask_for_all(prefix, within), ensure_ascii=False)
            if sys.getsizeof(text) > MAX_LISTING_BYTES:
                code = f"all of it takes more than {MAX_LISTING_BYTES} bytes"
                raise self.access.failure(prefix, Outcome.INVALID, code, TOO_MUCH)
            return text

        halfway = (time.monotonic() + deadline) / 2  # the rest is for the read in its place
        try:
            listing = self._fresh(LISTING + prefix, ask_for_all, halfway)
        except LookupFailed as error:
            warn(("listing", self.config.title, prefix), "Falling back to single reads: %s", error)
            return None
        names = _listed(listing)
        text = names.get(name)
        # Another process may have listed before this one was told of a change, or of a denial.
        if (text is None and name in names) or self._cache.knows_newer(name, listing.at):
            return None
        self._cache.stay(LISTING + prefix)  # or the names that it answers would push it out
        return self._cache.keep(name, Entry(text, listing.fresh_until, listing.at))

    def _fresh_or_stale(self, name: str, prefix: str | None, deadline: float) -> Entry:
        """Return the entry of *name*; an expired value where the store gives none."""
        failure: LookupFailed
        try:
            return self._fresh(name, self.access.ask, deadline)
        except LookupFailed as error:
            if error.store_has_spoken:
                raise
            failure = error
        stale = self._last_known(name, prefix)
        if stale is None:
            raise failure.with_traceback(None) from None
        self.counts.stale += 1
        warn(("stale", self.config.title), "Serving the last known value: %s", failure)
        return stale

    def _last_known(self, name: str, prefix: str | None) -> Entry | None:
        """Return the value that may stand in: what a read of *name* gave or a listing, whichever was last."""
        own = self._cache.stale(name)
        listing = None if prefix is None else self._cache.stale(LISTING + prefix)
        if listing is None or (own and own.at >= listing.at) or self._cache.knows_newer(name, listing.at):
            return own
        names = _listed(listing)
        if name not in names:
            return None  # proven absent since
        text = names[name]
        return own if text is None else self._cache.keep(name, Entry(text, listing.fresh_until, listing.at))

    def _fresh(self, name: str, ask: Ask, deadline: float) -> Entry:
        """Return the entry of *name* from memory, else by one flight.

        :raises LookupFailed: where the store does not give it.
        """
        within = deadline - time.monotonic()
        try:
            return self._cache.fresh(name) or self._cache.single_flight(
                name, lambda: self._find(name, ask, deadline), within
            )
        except TimeoutError:
            failure = self.access.failure(name.removeprefix(LISTING), Outcome.UNAVAILABLE, late(within))
        raise failure

    def _find(self, name: str, ask: Ask, deadline: float) -> Entry:
        """Return the entry of *name* from beyond this process, in the one flight for it.

        :raises LookupFailed: where the store does not give it.
        """
        if refusal := self._cache.refusal(name):
            raise refusal
        asked = cache.clock()
        return self._kept(name, self._ask_store(name, ask, deadline), asked)

    def _ask_store(self, name: str, ask: Ask, deadline: float) -> str | None:
        try:
            text = self._timed_call(ask, name, deadline)
        except LookupFailed as error:
            self._cache.note_failure(name, error)
            raise
        self._cache.answered(name)
        return text

    def _kept(self, name: str, text: str | None, asked: float) -> Entry:
        # A listing's first page is as old as its call, and a denial told since then is newer.
        return self._cache.keep(name, Entry(text, cache.clock() + jittered(self._lifetime(name, text)), asked))

    def _lifetime(self, name: str, text: str | None) -> float:
        if name.startswith(LISTING):
            return self._lifetimes.listing
        return self._lifetimes.of(None if self._cache.is_unusable(name, text) else text)

    def _broken(self, name: str) -> LookupFailed:
        code = f"{Breaker.FAILURES} lookups in a row had no answer; one is tried about every {Breaker.PAUSE:g} s"
        return self.access.failure(name.removeprefix(LISTING), Outcome.UNAVAILABLE, code)

    def cached(self, name: str) -> tuple[str, str | None]:
        """Say in words what this process's cache and the shared cache hold of *name*; ``None``: no shared cache.

        :raises ConfigurationError: where the shared cache cannot be used and lookups fail for it.
        """
        return _in_words(self._cache.fresh(name) or self._cache.stale(name)), None

    def shared_cache(self) -> SharedCache | None:
        """Return the shared cache; ``None`` where there is none, or no key for it yet.

        :raises ConfigurationError: where it cannot be used and the user must fix it.
        """
        return None

    def open_for_children(self) -> None:
        """Open the shared cache where that needs no key to be fetched.

        :raises NoSharedKeyError: where there is none.
        :raises ConfigurationError: where it cannot be used and the user must fix it.
        """

    def state(self) -> dict[str, bool | int]:
        """Say how this process's cache stands: whether the store counts as down, and how many answers are kept."""
        return {"counts_as_down": self._cache.store_counts_as_down, "cached": self._cache.size}

    def forget_values(self) -> list[object]:
        """Drop every value, and return what must outlive it unused: clients whose destructors would close sockets."""
        self._cache.clear()
        return [*self.access.clients]


def _listed(listing: Entry) -> dict[str, str | None]:
    """Return the names that a listing holds, and the texts of those that it gave."""
    assert listing.text is not None
    names: dict[str, str | None] | None = listing.decoded.get(LISTING)
    if names is None:
        names = listing.decoded[LISTING] = json.loads(listing.text)
    return names


def _in_words(entry: Entry | None) -> str:
    if entry is None:
        return NOT_CACHED
    expired = "" if cache.clock() < entry.fresh_until else ", expired"
    return f"{'absent' if entry.text is None else 'present'}{expired}"


_answers: dict[bytes, Answers] = {}
_for_children: dict[bytes, Answers] = {}
_inherited: list[object] = []


def answers_of(config: StoreConfig) -> Answers:
    """Return the process's one :class:`Answers` for *config*."""
    answers = _answers.get(config.fingerprint)
    if answers is None:
        try:
            made = new_answers(config)
        except ImportError:
            if SHARED not in sys.modules:
                raise
            return Answers(config)  # for this lookup alone: a signal's handler makes it, in the thread that loads it
        answers = _answers.setdefault(config.fingerprint, made)
    return answers


def new_answers(config: StoreConfig) -> Answers:
    """Make what answers for *config*, and shares the answers where it says so and they are kept at all."""
    if not (config.shared_cache and config.lifetimes.ttl):
        return Answers(config)
    with no_fork():  # here, so that who shares nothing does not load it
        from airflow_providers_secrets.lookup.shared_answers import SharedAnswers
    return SharedAnswers(config)


def counts_of_this_process() -> dict[str, dict[str, int]]:
    """Return the counts of every store that this process has asked for anything, by the backend's module."""
    found: dict[str, Counter[str]] = {}
    for answers in list(_answers.values()):
        found.setdefault(answers.config.slug, Counter()).update(answers.counts.so_far())
    return {slug: dict(counts) for slug, counts in found.items()}


def prepare_for_children(config: StoreConfig) -> None:
    """Make what every child would make before it asks anyone: answers that nobody has used, their shared cache open.

    No socket is opened, and no key is fetched: where Airflow's key is itself kept in a store, children open it. Where
    there is none, they warn.

    :raises ConfigurationError: where the shared cache cannot be used and the user must fix it.
    """
    answers = new_answers(config)
    try:
        answers.open_for_children()
    except NoSharedKeyError:
        answers = new_answers(config)  # each child looks for itself, and warns
    _for_children[config.fingerprint] = answers


def reset_after_fork() -> None:
    """Forget every client, login, answer, lock and thread of this process; the next lookup starts from nothing.

    Runs by itself in a forked child, which drops its parent's values with that.
    """
    global _answers  # noqa: PLW0603
    _for_children.clear()
    for answers in _answers.values():
        # What the parent connected is kept alive unused: its destructors could close connections that the parent
        # still uses, or wait for threads that do not exist here.
        _inherited.extend(answers.forget_values())
    _answers = {}


def _after_in_child() -> None:
    global _answers  # noqa: PLW0603
    prepared = dict(_for_children)
    reset_after_fork()
    for answers in prepared.values():
        answers.is_inherited = True
    _answers = prepared


in_child.append(_after_in_child)

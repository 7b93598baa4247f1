"""Where the answers for a store's names come from, in this order: memory, the shared cache, a listing, the store.

Airflow builds a backend many times over in a process and forks freely. So whatever is expensive or holds a socket, a
thread or a lock belongs to the one :class:`Answers` of its :class:`.StoreConfig`, which is found by the fingerprint and
made anew in every forked child.
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
"""Precedes the prefix in the name of an entry that holds a listing; no store has such a name."""

MAX_LISTING_BYTES: Final = cache.MAX_BYTES // 2
"""The most bytes that a listing takes in a process's cache."""

SHORTEST: Final = 0.01
"""The fewest seconds that a call gets when the deadline is near."""

JUST_NOW: Final = 1.0
"""Seconds for which an answer is too new to be asked for again in the same lookup."""

SHARED: Final = "airflow_providers_secrets.lookup.shared_answers"
"""The module that has the class of shared answers."""

NOT_CACHED: Final = "not cached"
"""What :meth:`Answers.cached` returns for a name that a cache does not hold."""

Ask = Callable[[str, float], str | None]


class Answers:
    """Answers for one store in one process, which shares none with others. Any number of threads may use it.

    :param config: which store, and how long its answers are valid.
    """

    def __init__(self, config: StoreConfig) -> None:
        self.config = config
        self.access = StoreAccess(config)
        """The access to the store itself, past every cache."""
        self.counts = Counts(config.slug)
        """How this process's lookups ended."""
        self._lifetimes: Lifetimes = config.lifetimes
        self._cache = ProcessCache(self._lifetimes, self._broken)
        self.is_inherited = False
        """Whether a parent process made it, and this process has not yet checked that it still fits."""

    def read(self, name: str, prefix: str | None = None, deadline: float | None = None) -> Entry:
        """Return what the store says about *name*, or said within the time to live.

        :param prefix: a prefix of *name*; a listing of all names with that prefix may answer it.
        :param deadline: when the lookup as a whole ends, by ``time.monotonic``; ``None`` for ``timeout`` seconds from
            now.
        :raises LookupFailed: if there is neither a text nor a proof that there is none, at the latest at the deadline.
        :raises ConfigurationError: if the shared cache cannot be used and the user must fix it.
        :raises MissingDependencyError: if an SDK is not installed.
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
        """Return the deadline of a lookup that starts now."""
        return time.monotonic() + self.config.timeout

    def was_absent(self, name: str) -> bool:
        """Return whether *name* was absent in the store's last answer, no longer ago than a stale value may be."""
        return self._cache.was_absent(name)

    def forget(self, name: str, prefix: str | None) -> None:  # noqa: ARG002  # a subclass needs it
        """Invalidate what is cached for *name*, which has been written or deleted since."""
        self._cache.forget(name)

    def note_unusable(self, entry: Entry) -> bool:
        """Limit the lifetime of *entry*, whose text cannot be decoded, to that of an absence.

        Returns whether it has thereby expired: then another process left it, and the store may have something better.
        """
        now, ttl = cache.clock(), self._lifetimes.negative_ttl
        counted = now < entry.fresh_until
        if not entry.is_unusable:
            entry.is_unusable = True
            entry.fresh_until = min(entry.fresh_until, entry.at + jittered(ttl))
        return counted and now - entry.at >= max(ttl, JUST_NOW)

    def decoded_in_memory(self, kind: Kind, names: Iterable[str]) -> tuple[str | None] | None:
        """Return, from memory alone, the decoded text of the first of *names* that has one, or that all are absent.

        ``None`` if memory has no answer, or holds a text that was never decoded.
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
        """Answer *name* from the listing of *prefix*, or return ``None`` if it needs a single read."""

        def ask_for_all(_: str, within: float) -> str:
            text = json.dumps(self.access.ask_for_all(prefix, within), ensure_ascii=False)
            if sys.getsizeof(text) > MAX_LISTING_BYTES:
                code = f"all of it takes more than {MAX_LISTING_BYTES} bytes"
                raise self.access.failure(prefix, Outcome.INVALID, code, TOO_MUCH)
            return text

        halfway = (time.monotonic() + deadline) / 2  # the rest is for the single read
        try:
            listing = self._fresh(LISTING + prefix, ask_for_all, halfway)
        except LookupFailed as error:
            warn(("listing", self.config.title, prefix), "Falling back to single reads: %s", error)
            return None
        names = _listed(listing)
        text = names.get(name)
        # Another process may have listed before this one learned of a change or a denial.
        if (text is None and name in names) or self._cache.knows_newer(name, listing.at):
            return None
        self._cache.stay(LISTING + prefix)  # or the names that it answers would evict it
        return self._cache.keep(name, Entry(text, listing.fresh_until, listing.at))

    def _fresh_or_stale(self, name: str, prefix: str | None, deadline: float) -> Entry:
        """Return the entry of *name*, or an expired value if the store gives no answer."""
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
        """Return the value that may be served stale: from a read of *name* or from a listing, whichever was last."""
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
        """Return the entry of *name* from memory, otherwise by a single flight.

        :raises LookupFailed: if the store does not give it.
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
        """Return the entry of *name* from outside this process, within its single flight.

        :raises LookupFailed: if the store does not give it.
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
        # The entry dates from the call: a listing's first page is that old, and a denial since then is newer.
        return self._cache.keep(name, Entry(text, cache.clock() + jittered(self._lifetime(name, text)), asked))

    def _lifetime(self, name: str, text: str | None) -> float:
        if name.startswith(LISTING):
            return self._lifetimes.listing
        return self._lifetimes.of(None if self._cache.is_unusable(name, text) else text)

    def _broken(self, name: str) -> LookupFailed:
        code = f"{Breaker.FAILURES} lookups in a row had no answer; one is tried about every {Breaker.PAUSE:g} s"
        return self.access.failure(name.removeprefix(LISTING), Outcome.UNAVAILABLE, code)

    def cached(self, name: str) -> tuple[str, str | None]:
        """Describe what this process's cache and the shared cache hold for *name*; ``None``: no shared cache.

        :raises ConfigurationError: if the shared cache cannot be used and lookups fail because of that.
        """
        return _in_words(self._cache.fresh(name) or self._cache.stale(name)), None

    def shared_meanwhile(self, name: str, error: LookupFailed) -> tuple[str, float] | None:  # noqa: ARG002  # a subclass
        """Return the text that other processes use for *name* although the store gives *error*, and for how long.

        :return: the text, and seconds; ``None`` if they have none.
        """
        return None

    def shared_cache(self) -> SharedCache | None:
        """Return the shared cache; ``None`` if there is none, or no key for it yet.

        :raises ConfigurationError: if it cannot be used and the user must fix it.
        """
        return None

    def open_for_children(self) -> None:
        """Open the shared cache if that does not require fetching a key.

        :raises NoSharedKeyError: if there is no key.
        :raises ConfigurationError: if it cannot be used and the user must fix it.
        """

    def state(self) -> dict[str, bool | int]:
        """Return the state of this process's cache: whether the store counts as down, and how many answers are kept."""
        return {"counts_as_down": self._cache.store_counts_as_down, "cached": self._cache.size}

    def forget_values(self) -> list[object]:
        """Drop every value, and return what to keep alive unused: clients whose destructors would close sockets."""
        self._cache.clear()
        return self.access.clients


def _listed(listing: Entry) -> dict[str, str | None]:
    """Return the names that a listing holds, each with its text if the listing has that."""
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
    """Return the process's only :class:`Answers` for *config*."""
    answers = _answers.get(config.fingerprint)
    if answers is None:
        try:
            made = new_answers(config)
        except ImportError:
            if SHARED not in sys.modules:
                raise
            return Answers(config)  # for this lookup only: its signal handler interrupted this thread's import
        answers = _answers.setdefault(config.fingerprint, made)
    return answers


def new_answers(config: StoreConfig) -> Answers:
    """Make the answers for *config*: shared ones, if it says so and answers are kept at all."""
    if not (config.shared_cache and config.lifetimes.ttl):
        return Answers(config)
    with no_fork():  # here, so that it is not loaded where nothing is shared
        from airflow_providers_secrets.lookup.shared_answers import SharedAnswers
    return SharedAnswers(config)


def counts_of_this_process() -> dict[str, dict[str, int]]:
    """Return the counts of every store that this process has asked for anything, by the backend's module."""
    found: dict[str, Counter[str]] = {}
    for answers in list(_answers.values()):
        found.setdefault(answers.config.slug, Counter()).update(answers.counts.so_far())
    return {slug: dict(counts) for slug, counts in found.items()}


def prepare_for_children(config: StoreConfig) -> None:
    """Make what every child would make before it asks anyone: unused answers, with their shared cache open.

    No socket is opened, and no key is fetched: if Airflow's key is itself kept in a store, children open the shared
    cache. If there is no key, they warn.

    :raises ConfigurationError: if the shared cache cannot be used and the user must fix it.
    """
    answers = new_answers(config)
    try:
        answers.open_for_children()
    except NoSharedKeyError:
        answers = new_answers(config)  # each child looks for itself, and warns
    _for_children[config.fingerprint] = answers


def reset_after_fork() -> None:
    """Forget every client, login, answer, lock and thread of this process; the next lookup starts from nothing.

    Runs automatically in a forked child, which thereby drops its parent's values.
    """
    global _answers  # noqa: PLW0603
    _for_children.clear()
    for answers in _answers.values():
        # The parent's clients are kept alive, unused: their destructors could close connections that the parent still
        # uses, or wait for threads that do not exist here.
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

"""What can be answered for a store's names, in this order: memory, the shared cache, a listing, the store.

Airflow builds a backend many times over in a process and forks freely. So whatever is expensive or holds a
socket, a thread or a lock is reached from here, from one :class:`Answers` for each :class:`.StoreConfig`, found by its
fingerprint and made anew in every forked child.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from airflow_providers_secrets.errors import LookupFailed, NoSharedKeyError, StoreUnavailable
from airflow_providers_secrets.lookup import cache
from airflow_providers_secrets.lookup.access import StoreAccess, late, store_of
from airflow_providers_secrets.lookup.cache import Breaker, Entry, Lifetimes, ProcessCache, jittered
from airflow_providers_secrets.lookup.config import StoreConfig
from airflow_providers_secrets.lookup.forks import no_fork
from airflow_providers_secrets.lookup.metrics import Counts
from airflow_providers_secrets.lookup.notices import warn
from airflow_providers_secrets.lookup.outcomes import ERRORS, TOO_MUCH
from airflow_providers_secrets.stores.base import Outcome, environment

if TYPE_CHECKING:
    from airflow_providers_secrets.lookup.plan import Kind
    from airflow_providers_secrets.lookup.shared_cache import SharedCache, SharedEntry

OUTAGE: Final = "\0outage"
"""The name under which processes tell each other that the store gave no answer; no store has such a name."""

LISTING: Final = "\0listing\0"
"""Stands before the prefix whose listing an entry holds; no store has such a name."""

MAX_LISTING_BYTES: Final = cache.MAX_BYTES // 2
"""The most that a listing takes of a process's cache."""

SECRET_PARTS: Final = ("SECRET_ACCESS_KEY", "SESSION_TOKEN")
"""How variables end that change with each set of temporary credentials; the id beside them tells who asks."""

SHORTEST: Final = 0.01
"""The fewest seconds that a call gets when the deadline is near."""

REOPENING_PAUSE: Final = 60.0
"""Seconds until the shared cache is tried again, where its place could not be used or there was no key."""

JUST_NOW: Final = 1.0
"""Seconds for which an answer is too new to be asked for again in the same lookup."""

LEFT_FOR_OTHERS: Final = 0.05
"""The part of a lookup's time in which it writes to no server: other threads wait for its end until theirs."""

CLAIMING: Final = 0.25
"""The most seconds for which processes wait for each other to say which one asks a store that was down."""

NOT_CACHED: Final = "not cached"
"""What :meth:`Answers.cached` says of a name that a cache does not hold."""

Ask = Callable[[str, float], str | None]

_FAILURES: Final = {error.__name__: outcome for outcome, error in ERRORS.items()}


class Answers:
    """Answers for one store in one process. Any number of threads may use it.

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
        self._shared: SharedCache | None = None
        self._asker = b""
        self._environment: list[tuple[str, str]] = []
        self.is_inherited = False
        """Whether a parent opened the shared cache, and this process has not yet looked whether that still fits."""
        self._opening = threading.RLock()
        self._is_opening = False
        self._opening_again_at = 0.0

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
            shared = self._opened_or_none()
            if prefix is not None and (entry := self._from_listing(name, prefix, shared, deadline)):
                return entry
            return self._fresh_or_stale(name, prefix, shared, deadline)
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

    def _from_listing(self, name: str, prefix: str, shared: SharedCache | None, deadline: float) -> Entry | None:
        """Answer *name* from the listing of *prefix*, or return ``None`` where only a read of its own will."""

        def ask_for_all(_: str, within: float) -> str:
            text = json.dumps(self.access.ask_for_all(prefix, within), ensure_ascii=False)
            if sys.getsizeof(text) > MAX_LISTING_BYTES:
                code = f"all of it takes more than {MAX_LISTING_BYTES} bytes"
                raise self.access.failure(prefix, Outcome.INVALID, code, TOO_MUCH)
            return text

        halfway = (time.monotonic() + deadline) / 2  # the rest is for the read in its place
        try:
            listing = self._fresh(LISTING + prefix, ask_for_all, shared, halfway)
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

    def _fresh_or_stale(self, name: str, prefix: str | None, shared: SharedCache | None, deadline: float) -> Entry:
        """Return the entry of *name*; an expired value where the store gives none."""
        failure: LookupFailed
        try:
            return self._fresh(name, self.access.ask, shared, deadline)
        except StoreUnavailable as error:
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

    def _fresh(self, name: str, ask: Ask, shared: SharedCache | None, deadline: float) -> Entry:
        """Return the entry of *name* from memory, else by one flight.

        :raises LookupFailed: where the store does not give it.
        """
        within = deadline - time.monotonic()
        try:
            return self._cache.fresh(name) or self._cache.single_flight(
                name, lambda: self._share_or_ask(name, ask, shared, deadline), within
            )
        except TimeoutError:
            failure = self.access.failure(name.removeprefix(LISTING), Outcome.UNAVAILABLE, late(within))
        raise failure

    def _share_or_ask(self, name: str, ask: Ask, shared: SharedCache | None, deadline: float) -> Entry:
        """Look where other processes may have left it, and ask the store for what they have not."""
        if shared is None:
            self._refuse(name, None)
            return self._ask_store(name, ask, None, deadline)
        from airflow_providers_secrets.lookup.shared_cache.entries import exchanges_until  # who shares has loaded it

        def counts(said: SharedEntry) -> bool:
            return said.age < self._lifetime(name, said.text) * cache.JITTER[0]

        # Half of the time is for the cache and another process's call, the other half for a call of our own.
        halfway = (time.monotonic() + deadline) / 2
        with exchanges_until(halfway):
            if entry := self._adopt(name, shared.get(name, counts)):
                return entry
        latest = deadline - self.config.timeout * LEFT_FOR_OTHERS
        with exchanges_until(latest), contextlib.ExitStack() as flight:
            with exchanges_until(halfway):
                flight.enter_context(shared.flight(name, max(0.0, halfway - time.monotonic()), counts))
                if entry := self._adopt(name, shared.get(name, counts)):
                    return entry
                self._refuse(name, shared)
            return self._ask_store(name, ask, shared, deadline)

    def _adopt(self, name: str, said: SharedEntry | None) -> Entry | None:
        """Adopt what another process wrote, and return it if it still counts.

        :raises LookupFailed: what the store told the other process.
        """
        if said is None:
            return None
        at = cache.clock() - said.age
        entry = Entry(said.text, at + jittered(self._lifetime(name, said.text)), at)
        counts = cache.clock() < entry.fresh_until
        if not counts and self._cache.knows_newer(name, at):
            return None  # the shared cache could not be written to since; what this process knows may stand in
        self.counts.shared_hits += counts
        if said.failure is None:
            self._cache.keep(name, entry)  # if only to stand in while the store gives no answer
            return entry if counts else None
        self._cache.forget(name, at)
        if not counts:
            return None
        error, code, cure = said.failure
        raise self.access.failure(name.removeprefix(LISTING), _FAILURES.get(error), code, cure=cure)

    def _refuse(self, name: str, shared: SharedCache | None) -> None:
        """Raise the error that stands for a call while the store is known to give no answer."""
        if refusal := self._cache.refusal(name) or self._outage(name, shared):
            raise refusal

    def _ask_store(self, name: str, ask: Ask, shared: SharedCache | None, deadline: float) -> Entry:
        try:
            text = self._timed_call(ask, name, deadline)
        except LookupFailed as error:
            self._cache.note_failure(name, error)
            if shared and self._is_still_of_who_asks(shared):
                self._tell_failure(name, error, shared)
            raise
        self._cache.answered(name)
        if shared and self._is_still_of_who_asks(shared):
            shared.put(name, text)
            self._end_outage(shared)
        return self._cache.keep(name, Entry(text, cache.clock() + jittered(self._lifetime(name, text))))

    def _lifetime(self, name: str, text: str | None) -> float:
        if name.startswith(LISTING):
            return self._lifetimes.listing
        return self._lifetimes.of(None if self._cache.is_unusable(name, text) else text)

    # An outage, as all processes see it: each of a host's short-lived ones would else have to find out by itself.

    def _tell_failure(self, name: str, error: LookupFailed, shared: SharedCache) -> None:
        if not isinstance(error, StoreUnavailable):
            shared.put(name, None, (type(error).__name__, error.code, error.advice))
            self._end_outage(shared)
            return
        failures, age = self._outage_so_far(shared)
        shared.put(OUTAGE, str(failures + 1 if age <= Breaker.WITHIN else 1))

    def _outage(self, name: str, shared: SharedCache | None) -> LookupFailed | None:
        """Return the error that stands for a call while processes have found the store to be down."""
        if shared is None:
            return None
        failures, age = self._outage_so_far(shared)
        if failures < Breaker.FAILURES or age > Breaker.WITHIN:  # so long after the last one, failures are counted anew
            return None
        if age >= Breaker.PAUSE:
            with shared.flight(OUTAGE, CLAIMING):
                failures, age = self._outage_so_far(shared)
                if failures < Breaker.FAILURES:
                    return None
                if age >= Breaker.PAUSE:
                    # Whatever becomes of this call, the other processes wait for its result or as long again.
                    shared.put(OUTAGE, str(failures))
                    return None
        return self._broken(name)

    def _end_outage(self, shared: SharedCache) -> None:
        """Note that the store has spoken, whatever it said."""
        if self._outage_so_far(shared)[0]:
            shared.put(OUTAGE, "0")

    def _outage_so_far(self, shared: SharedCache) -> tuple[int, float]:
        """Return how many calls in a row had no answer, and the seconds since the last one."""
        said = shared.get(OUTAGE)
        return (int(said.text), said.age) if said and said.text else (0, 0.0)

    def _broken(self, name: str) -> LookupFailed:
        code = f"{Breaker.FAILURES} lookups in a row had no answer; one is tried about every {Breaker.PAUSE:g} s"
        return self.access.failure(name.removeprefix(LISTING), Outcome.UNAVAILABLE, code)

    # The shared cache.

    def _opened_or_none(self) -> SharedCache | None:
        """Open the shared cache for a lookup, which goes on without it where Airflow has no key."""
        try:
            return self._opened()
        except NoSharedKeyError as error:
            # An Airflow without a Fernet key is one in its first hour: its lookups must not end at a weaker source.
            warn(("shared cache", "key"), "Answers are not shared between processes: %s", error)
            return None

    def _opened(self, *, at_once: bool = False) -> SharedCache | None:
        """Open the shared cache where there is to be one and its key is known.

        :param at_once: do so although it could not be opened a moment ago.
        """
        if not self.config.shared_cache:
            return None
        asker = store_of(self.config).asker()
        if self._shared and asker != self._asker:
            self._shared = None  # a file changed hands: what was told before was told to somebody else
        if self.is_inherited:
            with self._opening:  # another thread must not take it before it is known to fit
                shared = self._shared
                if shared and not (shared.is_there() and self._environment == self._relevant_environment()):
                    self._shared = None
                self.is_inherited = False
        if self._shared or (not at_once and cache.clock() < self._opening_again_at):
            return self._shared
        with self._opening:
            if self._is_opening:  # Airflow's key is itself kept in a store, and this very lookup is to find it
                return None
            # Another thread may have tried meanwhile. A second cache would drop what the first is about to be told.
            if (self._shared and asker == self._asker) or (not at_once and cache.clock() < self._opening_again_at):
                return self._shared
            self._is_opening = True
            try:
                self._open(asker)
            except NoSharedKeyError:  # whoever asks for it may run a command that takes seconds
                self._opening_again_at = cache.clock() + REOPENING_PAUSE
                raise
            finally:
                self._is_opening = False
        return self._shared

    def _open(self, asker: bytes) -> None:
        with no_fork():  # here, so that who shares nothing does not load it
            from airflow_providers_secrets.lookup import shared_cache

            shared_cache.load_client(self.config)
        keys = self.config.shared_cache_key or shared_cache.airflow_keys()
        if keys:
            lifetime = self._lifetimes.ttl + self._lifetimes.negative_ttl + self._lifetimes.max_stale
            self._asker = asker
            self._shared = shared_cache.opened(self.config, keys, self._identity(), lifetime)
            if self._shared is None:
                self._opening_again_at = cache.clock() + REOPENING_PAUSE

    def _identity(self) -> bytes:
        """Identify the store and who asks it, so that nobody is answered what another was told."""
        self._environment = self._relevant_environment()
        told = json.dumps(self._environment).encode() + self._asker
        return hashlib.sha256(self.config.identity + told).digest()

    def _relevant_environment(self) -> list[tuple[str, str]]:
        """Return the variables that tell who asks."""
        prefixes = tuple(store_of(self.config).env_prefixes)
        return environment(
            lambda name: name == "HOME" or (name.startswith(prefixes) and not name.endswith(SECRET_PARTS))
        )

    def _is_still_of_who_asks(self, shared: SharedCache) -> bool:
        """Tell whether an answer belongs into *shared*: the login may be somebody else's since."""
        return shared is self._shared and store_of(self.config).asker() == self._asker

    def cached(self, name: str) -> tuple[str, str | None]:
        """Say in words what this process's cache and the shared cache hold of *name*; ``None``: no shared cache.

        :raises ConfigurationError: where the shared cache cannot be used and lookups fail for it.
        """
        entry = self._cache.fresh(name) or self._cache.stale(name)
        try:
            shared = self.shared_cache()
        except NoSharedKeyError as error:
            return _in_words(entry), f"not usable: {error}"
        if shared is None:
            return _in_words(entry), None
        said = shared.get(name)
        return _in_words(entry), _shared_in_words(said, self._lifetime(name, said.text)) if said else NOT_CACHED

    def shared_cache(self) -> SharedCache | None:
        """Return the shared cache; ``None`` where there is none, or no key for it yet.

        :raises ConfigurationError: where it cannot be used and the user must fix it.
        """
        return self._opened(at_once=True) if self._lifetimes.ttl else None

    def state(self) -> dict[str, bool | int]:
        """Say how this process's cache stands: whether the store counts as down, and how many answers are kept."""
        return {"counts_as_down": self._cache.store_counts_as_down, "cached": self._cache.size}

    def forget_values(self) -> list[object]:
        """Drop every value, and return what must outlive it unused: clients whose destructors would close sockets."""
        self._cache.clear()
        return [*self.access.clients, self._shared]


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


def _shared_in_words(said: SharedEntry, lifetime: float) -> str:
    what = said.failure[1] if said.failure else "present" if said.text is not None else "absent"
    return f"{what}, {said.age:.0f} s old{'' if said.age < lifetime else ', expired'}"


_answers: dict[bytes, Answers] = {}
_for_children: dict[bytes, Answers] = {}
_inherited: list[object] = []


def answers_of(config: StoreConfig) -> Answers:
    """Return the process's one :class:`Answers` for *config*."""
    answers = _answers.get(config.fingerprint)
    if answers is None:
        answers = _answers.setdefault(config.fingerprint, Answers(config))
    return answers


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
    answers = Answers(config)
    if config.shared_cache and config.lifetimes.ttl:
        from airflow_providers_secrets.lookup import shared_cache

        if config.shared_cache_key or shared_cache.has_airflow_key_at_hand():
            try:
                answers.shared_cache()
            except NoSharedKeyError:
                answers = Answers(config)  # each child looks for itself, and warns
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


os.register_at_fork(after_in_child=_after_in_child)

"""What can be answered for a store's names, in this order: memory, the shared cache, a listing, the store.

Airflow builds a backend many times over in a process and forks freely. So whatever is expensive or holds a
socket, a thread or a lock is reached from here, from one :class:`Answers` for each (class, connection
options), found by fingerprint and started anew in every forked child.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from airflow_providers_secrets import cache
from airflow_providers_secrets.access import StoreAccess
from airflow_providers_secrets.cache import Breaker, Entry, Lifetimes, ProcessCache, drawn
from airflow_providers_secrets.errors import LookupFailed, StoreUnavailable
from airflow_providers_secrets.forks import unforked
from airflow_providers_secrets.metrics import Counts
from airflow_providers_secrets.notices import warn
from airflow_providers_secrets.outcomes import ERRORS, Outcome
from airflow_providers_secrets.store import Store

if TYPE_CHECKING:
    from airflow_providers_secrets.shared import Said, SharedCache

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

Ask = Callable[[str, float], str | None]

_FAILURES: Final = {error.__name__: outcome for outcome, error in ERRORS.items()}


class Answers:
    """Answers for one store in one process. Any number of threads may use it.

    :param store: any backend with these connection options.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._access = StoreAccess(store)
        self._lifetimes: Lifetimes = store.lifetimes
        self._cache = ProcessCache(store.lifetimes, self._broken)
        self._shared: SharedCache | None = None
        self._opening = threading.RLock()
        self._is_opening = False
        self.module = type(store).__module__.rpartition(".")[2]
        """The backend's module, by which its metrics are called."""
        self.counts = Counts(self.module)
        """What this process's lookups came to."""

    def read(self, name: str, prefix: str | None = None) -> Entry:
        """Give what the store says of *name*, or said within the time to live.

        :param prefix: *name* begins with it, and may be answered from a listing of all names that do.
        :raises LookupFailed: where there is neither a text nor a proof that there is none, at the latest after
            ``timeout`` seconds.
        :raises ConfigurationError: where the shared cache cannot be used and the user must mend it.
        :raises MissingDependencyError: where an SDK is not installed.
        """
        entry = self._cache.fresh(name)
        if entry is None:
            return self._renewed(name, prefix)
        if entry.text is None:
            self.counts.negative_hits += 1
        else:
            self.counts.hits += 1
        return entry

    def _renewed(self, name: str, prefix: str | None) -> Entry:
        deadline = time.monotonic() + self._store.timeout
        try:
            if not self._lifetimes.ttl:
                return Entry(self._called(self._access.ask, name, deadline), 0.0)
            common = self._opened()
            if prefix is not None and (entry := self._from_listing(name, prefix, common, deadline)):
                return entry
            return self._current(name, self._access.ask, common, deadline)
        finally:
            self.counts.tell()

    def _called(self, ask: Ask, name: str, deadline: float) -> str | None:
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

    def _from_listing(self, name: str, prefix: str, common: SharedCache | None, deadline: float) -> Entry | None:
        """Answer *name* from the listing of *prefix*, or give ``None`` where only a read of its own will."""

        def ask_for_all(_: str, within: float) -> str:
            text = json.dumps(self._access.ask_for_all(prefix, within), ensure_ascii=False)
            if sys.getsizeof(text) > MAX_LISTING_BYTES:
                code = f"all of it takes more than {MAX_LISTING_BYTES} bytes"
                raise self._access.failure(prefix, Outcome.INVALID, code)
            return text

        halfway = deadline - self._store.timeout / 2  # the rest is for the read in its place
        try:
            listing = self._current(LISTING + prefix, ask_for_all, common, halfway)
        except LookupFailed as error:
            warn(("listing", self._store.store, prefix), "Each name under it is asked for by itself, since %s", error)
            return None
        assert listing.text is not None
        names = listing.decoded.get(LISTING)
        if names is None:
            names = listing.decoded[LISTING] = json.loads(listing.text)
        text = names.get(name)
        if text is None and (name in names or cache.clock() >= listing.fresh_until):
            return None
        return self._cache.keep(name, Entry(text, listing.fresh_until))

    def _current(self, name: str, ask: Ask, common: SharedCache | None, deadline: float) -> Entry:
        """Give the entry of *name* from memory, else by one flight; an expired value where the store gives none."""
        failure: LookupFailed
        try:
            return self._cache.fresh(name) or self._cache.once(
                name, lambda: self._found(name, ask, common, deadline), deadline - time.monotonic()
            )
        except TimeoutError:
            failure = self._access.failure(name, Outcome.UNAVAILABLE, f"no answer within {self._store.timeout:g} s")
        except StoreUnavailable as error:
            failure = error
        stale = self._cache.stale(name)
        if stale is None:
            raise failure.with_traceback(None) from None
        self.counts.stale += 1
        warn(("stale", self._store.store), "The last known value stands in, since %s", failure)
        return stale

    def _found(self, name: str, ask: Ask, common: SharedCache | None, deadline: float) -> Entry:
        """Look where other processes may have left it, and ask the store for what they have not."""
        if common is None:
            return self._asked(name, ask, None, deadline)
        if entry := self._taken(name, common.get(name)):
            return entry
        # Half of the time is for another process's call, the other half for one of our own.
        with common.flight(name, max(0.0, (deadline - time.monotonic()) / 2)):
            return self._taken(name, common.get(name)) or self._asked(name, ask, common, deadline)

    def _taken(self, name: str, said: Said | None) -> Entry | None:
        """Take over what another process wrote, and give it if it still counts.

        :raises LookupFailed: what the store told the other process.
        """
        if said is None:
            return None
        lifetime = self._lifetime(name, said.text)
        entry = Entry(said.text, cache.clock() + drawn(lifetime) - said.age)
        counts = cache.clock() < entry.fresh_until
        self.counts.shared_hits += counts
        if said.failure is None:
            self._cache.keep(name, entry)  # if only to stand in while the store gives no answer
            return entry if counts else None
        self._cache.forget(name)
        if not counts:
            return None
        error, code = said.failure
        raise self._access.failure(name, _FAILURES.get(error), code)

    def _asked(self, name: str, ask: Ask, common: SharedCache | None, deadline: float) -> Entry:
        if refusal := self._cache.refusal(name) or self._outage(name, common):
            raise refusal
        try:
            text = self._called(ask, name, deadline)
        except LookupFailed as error:
            self._cache.note_failure(name, error)
            if common:
                self._tell_failure(name, error, common)
            raise
        self._cache.answered(name)
        if common:
            common.put(name, text)
            if self._outage_so_far(common)[0]:
                common.put(OUTAGE, "0")
        return self._cache.keep(name, Entry(text, cache.clock() + drawn(self._lifetime(name, text))))

    def _lifetime(self, name: str, text: str | None) -> float:
        return self._lifetimes.listing if name.startswith(LISTING) else self._lifetimes.of(text)

    # An outage, as all processes see it: each of a host's short-lived ones would else have to find out by itself.

    def _tell_failure(self, name: str, error: LookupFailed, common: SharedCache) -> None:
        if not isinstance(error, StoreUnavailable):
            common.put(name, None, (type(error).__name__, error.code))
            return
        failures, age = self._outage_so_far(common)
        common.put(OUTAGE, str(failures + 1 if age <= Breaker.WITHIN else 1))

    def _outage(self, name: str, common: SharedCache | None) -> LookupFailed | None:
        """Give the error that stands for a call while processes have found the store to be down."""
        if common is None:
            return None
        failures, age = self._outage_so_far(common)
        return self._broken(name) if failures >= Breaker.FAILURES and age < Breaker.PAUSE else None

    def _outage_so_far(self, common: SharedCache) -> tuple[int, float]:
        """Give how many calls in a row had no answer, and the seconds since the last one."""
        said = common.get(OUTAGE)
        return (int(said.text), said.age) if said and said.text else (0, 0.0)

    def _broken(self, name: str) -> LookupFailed:
        code = f"{Breaker.FAILURES} lookups in a row had no answer; one is tried about every {Breaker.PAUSE:g} s"
        return self._access.failure(name, Outcome.UNAVAILABLE, code)

    # The shared cache.

    def _opened(self) -> SharedCache | None:
        """Open the shared cache where there is to be one and its key is known."""
        if self._shared or not self._store.shared_cache:
            return self._shared
        with self._opening:
            if self._is_opening:  # Airflow's key is itself kept in a store, and this very lookup is to find it
                return None
            self._is_opening = True
            try:
                with unforked():  # here, so that who shares nothing does not load it
                    from airflow_providers_secrets import shared

                ring = self._store.shared_cache_key or shared.airflows_keys()
                if ring:
                    lifetime = self._lifetimes.ttl + self._lifetimes.negative_ttl + self._lifetimes.max_stale
                    with unforked():
                        self._shared = shared.opened(self._store.shared_cache, ring, self._identity(), lifetime)
            finally:
                self._is_opening = False
        return self._shared

    def _identity(self) -> bytes:
        """Identify the store and who asks it, so that nobody is answered what another was told."""
        around = [
            (name, value)
            for name, value in sorted(os.environ.items())
            if name == "HOME" or (name.startswith(tuple(self._store.ambient)) and not name.endswith(SECRET_PARTS))
        ]
        return hashlib.sha256(self._store.identity + json.dumps(around).encode()).digest()


_answers: dict[bytes, Answers] = {}
_answers_lock = threading.Lock()
_inherited: list[object] = []


def answers_of(store: Store, fingerprint: bytes) -> Answers:
    """Give the process's one :class:`Answers` for *fingerprint*, made from *store* where there is none yet."""
    answers = _answers.get(fingerprint)
    if answers is None:
        with unforked(), _answers_lock:
            answers = _answers.setdefault(fingerprint, Answers(store))
    return answers


def counts_of_this_process() -> dict[str, dict[str, int]]:
    """Give the counts of every store that this process has asked for anything, by the backend's module."""
    found: dict[str, Counter[str]] = {}
    for answers in list(_answers.values()):
        found.setdefault(answers.module, Counter()).update(answers.counts.so_far())
    return {module: dict(counts) for module, counts in found.items()}


def start_anew() -> None:
    """Forget every client, login, answer, lock and thread of this process; the next lookup starts from nothing.

    Runs by itself in a forked child.
    """
    global _answers, _answers_lock  # noqa: PLW0603
    # What the parent made is kept alive unused: its destructors could close connections that the parent
    # still uses, or wait for threads that do not exist here.
    _inherited.append(_answers)
    _answers = {}
    _answers_lock = threading.Lock()


os.register_at_fork(after_in_child=start_anew)

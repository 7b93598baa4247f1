"""Answers that processes share: each uses the others' answers before it asks the store, and learns of outages.

Imported only if a shared cache is configured.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import threading
import time
from typing import Final

from airflow_providers_secrets.errors import LookupFailed, NoSharedKeyError, SecretsError
from airflow_providers_secrets.lookup import cache, shared_cache
from airflow_providers_secrets.lookup.access import store_of
from airflow_providers_secrets.lookup.answers import LISTING, NOT_CACHED, Answers, Ask
from airflow_providers_secrets.lookup.cache import Breaker, Entry, jittered
from airflow_providers_secrets.lookup.config import StoreConfig
from airflow_providers_secrets.lookup.forks import no_fork
from airflow_providers_secrets.lookup.notices import warn
from airflow_providers_secrets.lookup.outcomes import ERRORS
from airflow_providers_secrets.lookup.shared_cache import SharedCache, SharedEntry
from airflow_providers_secrets.lookup.shared_cache.entries import exchanges_until
from airflow_providers_secrets.lookup.workers import is_at_hand
from airflow_providers_secrets.stores.base import environment

OUTAGE: Final = "\0outage"
"""The name under which processes tell each other that the store gave no answer; no store has such a name. It is
followed by a digest of the variables that determine the route to the store: a worker with a dead proxy knows nothing of
other routes."""

ROUTE_VARIABLES: Final = ("_PROXY", "_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""How the names of those variables end."""

SECRET_PARTS: Final = ("SECRET_ACCESS_KEY", "SESSION_TOKEN")
"""How the names of variables end that change with each set of temporary credentials; the id that accompanies them
identifies who asks."""

OF_AN_INSTANCE: Final = frozenset(
    {
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "IDENTITY_ENDPOINT",
        "IDENTITY_HEADER",
        "MSI_ENDPOINT",
        "MSI_SECRET",
    }
)
"""Variables that may differ between tasks of Amazon ECS, or between instances of Azure's App Service, although the
identity is the same. If a scope is configured, it tells identities apart, and these variables are ignored."""

REOPENING_PAUSE: Final = 60.0
"""Seconds until the shared cache is tried again after its location could not be used or there was no key."""

LEFT_FOR_OTHERS: Final = 0.05
"""The fraction of a lookup's time, at its end, in which it writes to no server: other threads are waiting for its
result until their own deadlines."""

CLAIMING: Final = 0.25
"""The most seconds for which processes wait for each other to decide which one asks a store that was down."""

CLOCKS_APART: Final = 1.0
"""Seconds by which two readings of one moment may differ: an entry has the host's time, a process goes by its own."""

_FAILURES: Final = {error.__name__: outcome for outcome, error in ERRORS.items()}


class SharedAnswers(Answers):
    """Answers for one store, shared with other processes. Any number of threads may use it."""

    def __init__(self, config: StoreConfig) -> None:
        super().__init__(config)
        self._shared: SharedCache | None = None
        self._asker = b""
        self._environment: list[tuple[str, str]] = []
        self._outage_name = OUTAGE
        self._opening = threading.RLock()
        self._is_opening = False
        self._opening_again_at = 0.0

    def _refresh(self, name: str, prefix: str | None, deadline: float) -> Entry:
        # Before the flight for the name: Airflow's key may itself be kept in this store, under this very name.
        try:
            self._opened(until=(time.monotonic() + deadline) / 2)
        except NoSharedKeyError as error:
            # An Airflow without a Fernet key is newly installed: its lookups must not fall through to a weaker source.
            warn(("shared cache", "key"), "Answers are not shared between processes: %s", error)
        return super()._refresh(name, prefix, deadline)

    def _find(self, name: str, ask: Ask, deadline: float) -> Entry:
        """Look for an answer that another process has left, and ask the store if there is none."""
        shared = self._shared
        if shared is None or not self._is_still_of_who_asks(shared):  # another thread may have opened it since
            return super()._find(name, ask, deadline)

        def young_enough(said: SharedEntry) -> bool:
            return said.age < self._lifetime(name, said.text) * cache.JITTER[0]

        # Half of the time is for the cache and another process's call, the other half for a call of our own.
        halfway = (time.monotonic() + deadline) / 2
        with exchanges_until(halfway):
            if entry := self._adopt(name, shared.get(name, young_enough)):
                return entry
        latest = deadline - self.config.timeout * LEFT_FOR_OTHERS
        with exchanges_until(latest), contextlib.ExitStack() as flight:
            with exchanges_until(halfway):
                flight.enter_context(shared.flight(name, max(0.0, halfway - time.monotonic()), young_enough))
                if entry := self._adopt(name, shared.get(name, young_enough)):
                    return entry
                if refusal := self._refusal(name, shared):
                    raise refusal
            return self._ask_and_share(name, ask, shared, deadline)

    def _adopt(self, name: str, said: SharedEntry | None) -> Entry | None:
        """Adopt what another process wrote, and return it if it is still valid and nothing newer is known of *name*.

        :raises LookupFailed: if that is a failure: what the store told the other process.
        """
        if said is None:
            return None
        at = cache.clock() - said.age
        if self._cache.knows_newer(name, at + CLOCKS_APART):
            return None  # the shared cache could not be read or written since then
        entry = Entry(said.text, at + jittered(self._lifetime(name, said.text)), at)
        is_fresh = cache.clock() < entry.fresh_until
        self.counts.shared_hits += is_fresh
        if said.failure is None:
            self._cache.keep(name, entry)  # if only for use while the store gives no answer
            return entry if is_fresh else None
        self._cache.forget(name, at)
        if not is_fresh:
            return None
        error, code, cure = said.failure
        raise self.access.failure(name.removeprefix(LISTING), _FAILURES.get(error), code, cure=cure)

    def _ask_and_share(self, name: str, ask: Ask, shared: SharedCache, deadline: float) -> Entry:
        asked = cache.clock()
        try:
            text = self._ask_store(name, ask, deadline)
        except LookupFailed as error:
            if self._is_still_of_who_asks(shared):
                self._tell_failure(name, error, shared)
            raise
        if self._is_still_of_who_asks(shared):
            shared.put(name, text, age=cache.clock() - asked)
            self._end_outage(shared)
        return self._kept(name, text, asked)

    # All processes share what they know of an outage: otherwise each short-lived one would have to find out by itself.

    def _tell_failure(self, name: str, error: LookupFailed, shared: SharedCache) -> None:
        if error.store_has_spoken:
            shared.put(name, None, (type(error).__name__, error.code, error.advice))
            self._end_outage(shared)
        elif not error.on_the_way:
            failures, age = self._outage_so_far(shared)
            shared.put(self._outage_name, str(failures + 1 if age <= Breaker.WITHIN else 1))

    def _refusal(self, name: str, shared: SharedCache) -> LookupFailed | None:
        """Return the error to raise instead of asking the store again so soon, or ``None`` if it may be asked."""
        if known := self._cache.remembered(name):
            return known
        failures, age = self._outage_so_far(shared)
        if failures < Breaker.FAILURES or age > Breaker.WITHIN:  # so long after the last one, counting restarts
            return self._cache.refusal(name)
        # All processes decide together when one of them probes the store; this process's own breaker is not consulted.
        if age >= Breaker.PAUSE:
            with shared.flight(self._outage_name, CLAIMING):
                failures, age = self._outage_so_far(shared)
                if failures < Breaker.FAILURES:
                    return None
                if age >= Breaker.PAUSE:
                    # This restarts the pause: the other processes wait for the result of this call, or for that pause.
                    shared.put(self._outage_name, str(failures))
                    return None
        return self._broken(name)

    def _end_outage(self, shared: SharedCache) -> None:
        """Record that the store has answered, whatever it said."""
        if self._outage_so_far(shared)[0]:
            shared.put(self._outage_name, "0")

    def _outage_so_far(self, shared: SharedCache) -> tuple[int, float]:
        """Return how many calls in a row had no answer, and the seconds since the last one."""
        said = shared.get(self._outage_name)
        return (int(said.text), said.age) if said and said.text else (0, 0.0)

    # The shared cache.

    def open_for_children(self) -> None:
        """Open the shared cache if that neither runs a command nor asks a secrets backend; otherwise, children do."""
        if self.config.options["shared_cache_key"] or is_at_hand("core", "fernet_key"):
            self.shared_cache()

    def shared_cache(self) -> SharedCache | None:
        """Return the shared cache, which is tried at once; ``None`` if there is no key for it yet."""
        return self._opened(at_once=True)

    def _opened(self, *, until: float = math.inf, at_once: bool = False) -> SharedCache | None:
        """Open the shared cache if its key is known.

        :param until: how long to wait for another thread that is opening it, as a monotonic time. Airflow's key may
            come from a command; a caller that has waited in vain continues without the shared cache.
        :param at_once: try even if it could not be opened a moment ago.
        """
        asker = store_of(self.config).asker()
        if self._shared and asker != self._asker:
            self._shared = None  # a file changed hands: earlier answers were given to somebody else
        if self.is_inherited:
            with self._opening:  # another thread must not use it before this check
                shared = self._shared
                if shared and not (shared.is_there() and self._environment == self._relevant_environment()):
                    self._shared = None
                self.is_inherited = False
        if self._shared or (not at_once and cache.clock() < self._opening_again_at):
            return self._shared
        if not self._opening.acquire(timeout=min(max(0.0, until - time.monotonic()), threading.TIMEOUT_MAX)):
            return None
        try:
            if self._is_opening:  # Airflow's key is itself kept in a store, and this very lookup is to find it
                return None
            # Another thread may have tried meanwhile. Replacing its cache would lose what is about to be written there.
            if (self._shared and asker == self._asker) or (not at_once and cache.clock() < self._opening_again_at):
                return self._shared
            self._is_opening = True
            try:
                self._open(asker)
            except NoSharedKeyError:  # reading the key may run a command that takes seconds
                self._opening_again_at = cache.clock() + REOPENING_PAUSE
                raise
            finally:
                self._is_opening = False
            return self._shared
        finally:
            self._opening.release()

    def _open(self, asker: bytes) -> None:
        with no_fork():
            shared_cache.load_client(self.config)
        keys = self.config.options["shared_cache_key"] or shared_cache.airflow_keys()
        if keys:
            lifetime = self._lifetimes.ttl + self._lifetimes.negative_ttl + self._lifetimes.max_stale
            lifetime = max(lifetime, Breaker.WITHIN + Breaker.PAUSE)  # an outage's entry lives as long, too
            self._asker = asker
            self._shared = shared_cache.opened(self.config, keys, self._identity(), lifetime)
            if self._shared is None:
                self._opening_again_at = cache.clock() + REOPENING_PAUSE

    def _identity(self) -> bytes:
        """Identify the store and who asks it, so that nobody gets an answer that was given to somebody else."""
        self._environment = self._relevant_environment()
        way = environment(lambda name: name.upper().endswith(ROUTE_VARIABLES))
        self._outage_name = OUTAGE + hashlib.sha256(json.dumps(way).encode()).hexdigest()[:16]
        told = json.dumps(self._environment).encode() + self._asker
        return hashlib.sha256(self.config.identity + told).digest()

    def _relevant_environment(self) -> list[tuple[str, str]]:
        """Return the variables that identify who asks."""
        prefixes = tuple(store_of(self.config).env_prefixes)
        ignored = OF_AN_INSTANCE if self.config.options["shared_cache_scope"] else ()
        return environment(
            lambda name: (
                name == "HOME"
                or (name.startswith(prefixes) and not name.endswith(SECRET_PARTS) and name not in ignored)
            )
        )

    def _is_still_of_who_asks(self, shared: SharedCache) -> bool:
        """Return whether an answer belongs in *shared*: the login may have become somebody else's meanwhile."""
        return shared is self._shared and store_of(self.config).asker() == self._asker

    def cached(self, name: str) -> tuple[str, str | None]:
        """Describe what this process's cache and the shared cache hold for *name*; ``None``: no shared cache.

        :raises ConfigurationError: if the shared cache cannot be used and lookups fail because of that.
        """
        own, _ = super().cached(name)
        try:
            shared = self.shared_cache()
        except NoSharedKeyError as error:
            return own, f"not usable: {error}"
        if shared is None:
            return own, None
        said = shared.get(name)
        return own, _in_words(said, self._lifetime(name, said.text)) if said else NOT_CACHED

    def shared_meanwhile(self, name: str, error: LookupFailed) -> tuple[str, float] | None:
        """Return the text that other processes use for *name* although the store gives *error*, and for how long."""
        said: SharedEntry | None = None
        with contextlib.suppress(NoSharedKeyError):  # lookups do without, too
            said = shared.get(name) if (shared := self._opened()) else None
        if said is None or said.text is None:
            return None
        stale = 0.0 if error.store_has_spoken else self._lifetimes.max_stale
        left = self._lifetime(name, said.text) + stale - said.age
        return (said.text, left) if left > 0 else None

    def forget(self, name: str, prefix: str | None) -> None:
        """Invalidate what is cached for *name*, here and, under this identity, in the shared cache.

        :param prefix: the prefix whose listing may hold *name*, too.
        """
        super().forget(name, prefix)
        with contextlib.suppress(SecretsError):  # lookups report what is wrong with the shared cache
            if shared := self._opened():
                for outdated in (name,) if prefix is None else (name, LISTING + prefix):
                    shared.drop(outdated)

    def forget_values(self) -> list[object]:
        """Drop every value, and return what to keep alive unused: clients whose destructors would close sockets."""
        return [*super().forget_values(), self._shared]


def _in_words(said: SharedEntry, lifetime: float) -> str:
    what = said.failure[1] if said.failure else "present" if said.text is not None else "absent"
    return f"{what}, {said.age:.0f} s old{'' if said.age < lifetime else ', expired'}"

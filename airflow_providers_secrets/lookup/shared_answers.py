"""What a process answers that shares what it is told: others' answers come before the store, and outages are known.

Imported only where a shared cache is configured.
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
from airflow_providers_secrets.stores.base import environment

OUTAGE: Final = "\0outage"
"""The name under which processes tell each other that the store gave no answer; no store has such a name. A digest
follows of the variables that say by which way it is asked: a worker with a dead proxy knows nothing of the others."""

ROUTE_VARIABLES: Final = ("_PROXY", "_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""How those variables end."""

SECRET_PARTS: Final = ("SECRET_ACCESS_KEY", "SESSION_TOKEN")
"""How variables end that change with each set of temporary credentials; the id beside them tells who asks."""

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
"""Variables that may differ from one task of Amazon ECS or instance of Azure's App Service to the next, though the
identity is the same. Who names a scope tells identities apart by that, and these do not count."""

REOPENING_PAUSE: Final = 60.0
"""Seconds until the shared cache is tried again, where its place could not be used or there was no key."""

LEFT_FOR_OTHERS: Final = 0.05
"""The part of a lookup's time in which it writes to no server: other threads wait for its end until theirs."""

CLAIMING: Final = 0.25
"""The most seconds for which processes wait for each other to say which one asks a store that was down."""

CLOCKS_APART: Final = 1.0
"""Seconds by which two times may differ that are the same: an entry has the host's, and a process goes by its own."""

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
            # An Airflow without a Fernet key is one in its first hour: its lookups must not end at a weaker source.
            warn(("shared cache", "key"), "Answers are not shared between processes: %s", error)
        return super()._refresh(name, prefix, deadline)

    def _find(self, name: str, ask: Ask, deadline: float) -> Entry:
        """Look where other processes may have left it, and ask the store for what they have not."""
        shared = self._shared
        if shared is None or not self._is_still_of_who_asks(shared):  # another thread may have opened it since
            return super()._find(name, ask, deadline)

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
                if refusal := self._refusal(name, shared):
                    raise refusal
            return self._ask_and_share(name, ask, shared, deadline)

    def _adopt(self, name: str, said: SharedEntry | None) -> Entry | None:
        """Adopt what another process wrote, and return it if it still counts and nothing newer is known of *name*.

        :raises LookupFailed: what the store told the other process.
        """
        if said is None:
            return None
        at = cache.clock() - said.age
        if self._cache.knows_newer(name, at + CLOCKS_APART):
            return None  # the shared cache could not be asked or written to since
        entry = Entry(said.text, at + jittered(self._lifetime(name, said.text)), at)
        counts = cache.clock() < entry.fresh_until
        self.counts.shared_hits += counts
        if said.failure is None:
            self._cache.keep(name, entry)  # if only to stand in while the store gives no answer
            return entry if counts else None
        self._cache.forget(name, at)
        if not counts:
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

    # An outage, as all processes see it: each of a host's short-lived ones would else have to find out by itself.

    def _tell_failure(self, name: str, error: LookupFailed, shared: SharedCache) -> None:
        if error.store_has_spoken:
            shared.put(name, None, (type(error).__name__, error.code, error.advice))
            self._end_outage(shared)
        elif not error.on_the_way:
            failures, age = self._outage_so_far(shared)
            shared.put(self._outage_name, str(failures + 1 if age <= Breaker.WITHIN else 1))

    def _refusal(self, name: str, shared: SharedCache) -> LookupFailed | None:
        """Return the error that stands for asking the store again so soon, or ``None`` where it may be asked."""
        if known := self._cache.remembered(name):
            return known
        failures, age = self._outage_so_far(shared)
        if failures < Breaker.FAILURES or age > Breaker.WITHIN:  # so long after the last one, failures are counted anew
            return self._cache.refusal(name)
        # When one is to find out whether that is over, all of them say; this process's own turn is left for later.
        if age >= Breaker.PAUSE:
            with shared.flight(self._outage_name, CLAIMING):
                failures, age = self._outage_so_far(shared)
                if failures < Breaker.FAILURES:
                    return None
                if age >= Breaker.PAUSE:
                    # Whatever becomes of this call, the other processes wait for its result or as long again.
                    shared.put(self._outage_name, str(failures))
                    return None
        return self._broken(name)

    def _end_outage(self, shared: SharedCache) -> None:
        """Note that the store has spoken, whatever it said."""
        if self._outage_so_far(shared)[0]:
            shared.put(self._outage_name, "0")

    def _outage_so_far(self, shared: SharedCache) -> tuple[int, float]:
        """Return how many calls in a row had no answer, and the seconds since the last one."""
        said = shared.get(self._outage_name)
        return (int(said.text), said.age) if said and said.text else (0, 0.0)

    # The shared cache.

    def open_for_children(self) -> None:
        """Open the shared cache where that neither runs a command nor asks a secrets backend; else, children do."""
        if self.config.shared_cache_key or shared_cache.has_airflow_key_at_hand():
            self.shared_cache()

    def shared_cache(self) -> SharedCache | None:
        """Return the shared cache, tried at once; ``None`` where there is no key for it yet."""
        return self._opened(at_once=True)

    def _opened(self, *, until: float = math.inf, at_once: bool = False) -> SharedCache | None:
        """Open the shared cache where its key is known.

        :param until: the monotonic time until which another thread is waited for that opens it. Airflow's key may come
            from a command; who waited for that in vain goes on without.
        :param at_once: do so although it could not be opened a moment ago.
        """
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
        if not self._opening.acquire(timeout=min(max(0.0, until - time.monotonic()), threading.TIMEOUT_MAX)):
            return None
        try:
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
        finally:
            self._opening.release()

    def _open(self, asker: bytes) -> None:
        with no_fork():
            shared_cache.load_client(self.config)
        keys = self.config.shared_cache_key or shared_cache.airflow_keys()
        if keys:
            lifetime = self._lifetimes.ttl + self._lifetimes.negative_ttl + self._lifetimes.max_stale
            lifetime = max(lifetime, Breaker.WITHIN + Breaker.PAUSE)  # an outage's note lives as long, too
            self._asker = asker
            self._shared = shared_cache.opened(self.config, keys, self._identity(), lifetime)
            if self._shared is None:
                self._opening_again_at = cache.clock() + REOPENING_PAUSE

    def _identity(self) -> bytes:
        """Identify the store and who asks it, so that nobody is answered what another was told."""
        self._environment = self._relevant_environment()
        way = environment(lambda name: name.upper().endswith(ROUTE_VARIABLES))
        self._outage_name = OUTAGE + hashlib.sha256(json.dumps(way).encode()).hexdigest()[:16]
        told = json.dumps(self._environment).encode() + self._asker
        return hashlib.sha256(self.config.identity + told).digest()

    def _relevant_environment(self) -> list[tuple[str, str]]:
        """Return the variables that tell who asks."""
        prefixes = tuple(store_of(self.config).env_prefixes)
        ignored = OF_AN_INSTANCE if self.config.options["shared_cache_scope"] else ()
        return environment(
            lambda name: (
                name == "HOME"
                or (name.startswith(prefixes) and not name.endswith(SECRET_PARTS) and name not in ignored)
            )
        )

    def _is_still_of_who_asks(self, shared: SharedCache) -> bool:
        """Tell whether an answer belongs into *shared*: the login may be somebody else's since."""
        return shared is self._shared and store_of(self.config).asker() == self._asker

    def cached(self, name: str) -> tuple[str, str | None]:
        """Say in words what this process's cache and the shared cache hold of *name*; ``None``: no shared cache.

        :raises ConfigurationError: where the shared cache cannot be used and lookups fail for it.
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

    def forget(self, name: str, prefix: str | None) -> None:
        """Let nothing count any more that was said of *name* here or, under this identity, to other processes.

        :param prefix: whose listing may hold *name*, too.
        """
        super().forget(name, prefix)
        with contextlib.suppress(SecretsError):  # lookups say what is wrong with the shared cache
            if shared := self._opened():
                for outdated in (name,) if prefix is None else (name, LISTING + prefix):
                    shared.drop(outdated)

    def forget_values(self) -> list[object]:
        """Drop every value, and return what must outlive it unused: clients whose destructors would close sockets."""
        return [*super().forget_values(), self._shared]


def _in_words(said: SharedEntry, lifetime: float) -> str:
    what = said.failure[1] if said.failure else "present" if said.text is not None else "absent"
    return f"{what}, {said.age:.0f} s old{'' if said.age < lifetime else ', expired'}"

"""The process's one way to a store: one client, one login, bounded time, one retry layer.

Airflow builds a backend many times over in a process and forks freely. So whatever is expensive or holds a
socket, a thread or a lock lives here, in one :class:`StoreAccess` for each (class, connection options),
found by fingerprint and started anew in every forked child.
"""

from __future__ import annotations

import contextlib
import contextvars
import gc
import importlib
import logging
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from airflow_providers_secrets.cache import Breaker, Entry, Lifetimes, ProcessCache
from airflow_providers_secrets.errors import (
    LookupFailed,
    MissingDependencyError,
    SecretNotFound,
    SecretsError,
    StoreUnavailable,
)
from airflow_providers_secrets.notices import warn
from airflow_providers_secrets.outcomes import ADVICE, ERRORS, RETRIED, Outcome

if TYPE_CHECKING:
    from tenacity import RetryCallState

MAX_VALUE_LENGTH: Final = 1024 * 1024
"""The longest text taken from a store, in characters; every store's own limit is far below."""

MAX_OVERDUE: Final = 8
"""How many calls may hang beyond their deadline before further ones are refused at once."""

BACKOFF: Final[Mapping[Outcome, tuple[float, float]]] = {
    Outcome.UNAVAILABLE: (0.1, 2.0),
    Outcome.THROTTLED: (1.0, 5.0),
}
"""Bounds in seconds of the first and of the longest pause before another attempt, drawn with full jitter
(AWS Architecture Blog, "Exponential Backoff And Jitter")."""


class Answer(NamedTuple):
    """What a store gave for one name.

    :param text: the secret's text.
    :param name: the name that the store says it answered for, where it says so.
    """

    text: str
    name: str | None = None

    def __repr__(self) -> str:
        return f"Answer(name={self.name!r})"


class Listed(NamedTuple):
    """What a store's listing says of one name.

    :param name: the name, spelled as lookups ask for it.
    :param text: the secret's text where the listing gave it; ``None`` where only a read of its own will.
    """

    name: str
    text: str | None = None

    def __repr__(self) -> str:
        return f"Listed(name={self.name!r})"


class Store(ABC):
    """What a backend says and does for the core to speak to its store.

    Its methods raise whatever the SDK raises: the core classifies it once, by :meth:`codes` and
    :attr:`outcomes`.
    """

    store: ClassVar[str]
    """The store in words, for messages."""
    sdk: ClassVar[Sequence[str]]
    """The modules to import before connecting."""
    extra: ClassVar[str]
    """The extra of this package that brings the SDK."""
    outcomes: ClassVar[Mapping[str, Outcome]]
    """What the SDK's codes mean. A code that no entry knows is UNAVAILABLE."""
    advice: ClassVar[Mapping[Outcome, str]] = {}
    """What to do about an outcome, where the store's own words help more than the general ones."""
    expired_login: ClassVar[frozenset[str]] = frozenset()
    """The codes after which one new client is made and asked, once per lookup."""
    telltale_loggers: ClassVar[Sequence[str]] = ()
    """The SDK's loggers that write requests or answers out at DEBUG or INFO."""

    @property
    @abstractmethod
    def timeout(self) -> float:
        """Seconds for the whole lookup, all attempts and pauses included."""

    @property
    @abstractmethod
    def max_attempts(self) -> int:
        """How often the store is asked at most."""

    @property
    @abstractmethod
    def lifetimes(self) -> Lifetimes:
        """How long the process remembers what the store said."""

    @abstractmethod
    def connect(self) -> Any:
        """Make the client."""

    @abstractmethod
    def fetch(self, client: Any, name: str) -> Answer:
        """Read one name: the only call to the store."""

    def listing(self, client: Any, base: str) -> Iterator[Listed]:
        """Give everything that exists under *base*, page by page; nothing left out once it ends."""
        raise NotImplementedError

    @abstractmethod
    def codes(self, error: Exception) -> Iterator[str]:
        """Give the codes of *error* by which :attr:`outcomes` may know it, the most specific first."""

    def retry_after(self, error: Exception) -> float | None:  # noqa: ARG002
        """Give the seconds that the store asked to wait, where it did."""
        return None


class StoreAccess:
    """Reads names of one store, from any number of threads.

    Nothing is made before the first :meth:`read`. A lookup runs in a thread of its own, since no SDK's
    time-outs bound a server that sends a byte now and then: the caller leaves it behind at the deadline.
    That also keeps an exception that Airflow raises from a signal (``AirflowTaskTimeout``) out of the SDK's
    locks.

    :param store: any backend with these connection options.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cache = ProcessCache(store.lifetimes, self._broken) if store.lifetimes.ttl else None
        self._lock = threading.Lock()
        self._clients: list[Any] = []
        self._overdue = 0
        for name in store.telltale_loggers:
            logging.getLogger(name).addFilter(_silent_in_lookups)

    def read(self, name: str) -> Entry:
        """Give what the store says of *name*, or said within the time to live.

        :raises LookupFailed: where there is neither a text nor a proof that there is none, at the latest after
            ``timeout`` seconds.
        :raises MissingDependencyError: where the SDK is not installed.
        """
        cache = self._cache
        if cache is None:
            return Entry(self._ask(name), 0.0)
        return cache.fresh(name) or self._renewed(cache, name)

    def _renewed(self, cache: ProcessCache, name: str) -> Entry:
        failure: LookupFailed
        try:
            return cache.once(name, lambda: self._found(cache, name), self._store.timeout)
        except TimeoutError:
            failure = self._failure(name, Outcome.UNAVAILABLE, f"no answer within {self._store.timeout:g} s")
        except StoreUnavailable as error:
            failure = error
        stale = cache.stale(name)
        if stale is None:
            raise failure.with_traceback(None) from None
        warn(("stale", self._store.store), "The last known value stands in, since %s", failure)
        return stale

    def _found(self, cache: ProcessCache, name: str) -> Entry:
        if refusal := cache.refusal(name):
            raise refusal
        try:
            return cache.keep(name, self._ask(name))
        except LookupFailed as error:
            cache.note_failure(name, error)
            raise

    def _broken(self, name: str) -> LookupFailed:
        code = f"{Breaker.FAILURES} lookups had no answer; one is tried about every {Breaker.PAUSE:g} s"
        return self._failure(name, Outcome.UNAVAILABLE, code)

    def _ask(self, name: str) -> str | None:
        try:
            return self._fetch_in_time(name)
        except SecretNotFound:
            return None

    def _fetch_in_time(self, name: str) -> str:
        load_sdk(self._store.sdk, self._store.extra)
        if self._overdue >= MAX_OVERDUE:
            raise self._failure(name, Outcome.UNAVAILABLE, f"{MAX_OVERDUE} earlier calls still hang")
        call = _Call(self, name)
        if not call.finished_within(self._store.timeout):
            raise self._failure(name, Outcome.UNAVAILABLE, f"no answer within {self._store.timeout:g} s")
        # The error is raised from here, so that no frame of the SDK hangs on the traceback: their local
        # variables hold requests and answers.
        if call.error is not None:
            raise call.error
        if call.text is None:
            raise self._failure(name, Outcome.UNAVAILABLE, "the lookup's thread was ended")
        return call.text

    def fetch(self, name: str, given_up: threading.Event) -> str:
        """Ask for *name* until the answer is final; pauses and attempts end when *given_up* is set.

        :raises SecretsError: any failure, as this package's own error and unchained.
        """
        # Airflow requires and has loaded it; our own modules stay importable without.
        from tenacity import Retrying, retry_if_exception, sleep_using_event, stop_after_attempt, stop_before_delay
        from tenacity.stop import stop_when_event_set

        retrying = Retrying(
            retry=retry_if_exception(lambda error: self._outcome(error) in RETRIED),
            wait=self._pause,
            stop=stop_when_event_set(given_up)
            | stop_after_attempt(self._store.max_attempts)
            | stop_before_delay(self._store.timeout),
            sleep=sleep_using_event(given_up),
            reraise=True,
        )
        try:
            return retrying(self._attempt, name)
        except SecretsError as error:
            failure: SecretsError = error
        except Exception as error:  # noqa: BLE001  # every failure is classified
            code = next(iter(self._store.codes(error)), type(error).__name__)
            failure = self._failure(name, self._outcome(error), code)
        raise failure

    def _attempt(self, name: str) -> str:
        """Make one call, and one more on a new client where the login had expired."""
        client = self._client()
        try:
            answer = self._store.fetch(client, name)
        except Exception as error:
            if self._store.expired_login.isdisjoint(self._store.codes(error)):
                raise
            self._forget(client)
            answer = self._store.fetch(self._client(), name)
        if answer.name is not None and answer.name != name:
            raise self._failure(name, Outcome.INVALID, "the answer is for another name")
        if len(answer.text) > MAX_VALUE_LENGTH:
            raise self._failure(name, Outcome.INVALID, f"its value is longer than {MAX_VALUE_LENGTH} characters")
        return answer.text

    def _client(self) -> Any:
        with self._lock:
            if not self._clients:
                with _collector_paused():
                    self._clients.append(self._store.connect())
            return self._clients[-1]

    def _forget(self, client: Any) -> None:
        with self._lock:
            if client in self._clients:
                self._clients.remove(client)

    def _outcome(self, error: BaseException) -> Outcome | None:
        """Classify *error* by its most specific code that the store's table knows."""
        if isinstance(error, SecretsError) or not isinstance(error, Exception):
            return None
        known = (self._store.outcomes.get(code) for code in self._store.codes(error))
        # What no table knows is a failure all the same, and never an absence.
        return next((outcome for outcome in known if outcome), Outcome.UNAVAILABLE)

    def _pause(self, state: RetryCallState) -> float:
        from tenacity import wait_random_exponential

        error = state.outcome.exception() if state.outcome else None
        if not isinstance(error, Exception):
            return 0.0
        first, longest = BACKOFF[self._outcome(error) or Outcome.UNAVAILABLE]
        drawn = wait_random_exponential(multiplier=first, max=longest)(state)
        return max(drawn, self._store.retry_after(error) or 0.0)

    def _failure(self, name: str, outcome: Outcome | None, code: str) -> LookupFailed:
        outcome = outcome or Outcome.UNAVAILABLE
        advice = self._store.advice.get(outcome) or ADVICE[outcome]
        return ERRORS[outcome](self._store.store, name, code, advice)

    def count_overdue(self, change: int) -> None:
        """Note that a call was left behind at its deadline, or that such a call has ended after all."""
        with self._lock:
            self._overdue += change


class _Call:
    """One lookup in a daemon thread of its own, so that neither its caller nor the interpreter's exit waits."""

    text: str | None = None
    error: SecretsError | None = None

    def __init__(self, access: StoreAccess, name: str) -> None:
        self._access = access
        self._name = name
        self._given_up = threading.Event()
        self._finished = threading.Event()
        self._state = threading.Lock()
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(self._run,), name="secrets-lookup", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # The interpreter is ending, or the host has no thread left: ask here, within the SDK's own time-outs.
            context.run(self._run)

    def finished_within(self, timeout: float) -> bool:
        """Wait at most *timeout* seconds; after that, or after any exception here, the call is left behind."""
        try:
            self._finished.wait(timeout)
        finally:
            with self._state:
                late = not self._finished.is_set()
                if late:
                    self._given_up.set()
                    self._access.count_overdue(+1)
        return not late

    def _run(self) -> None:
        _in_lookup.set(True)
        try:
            self.text = self._access.fetch(self._name, self._given_up)
        except SecretsError as error:
            self.error = error.with_traceback(None)
        finally:
            with self._state:
                self._finished.set()
                if self._given_up.is_set():
                    self._access.count_overdue(-1)


_in_lookup = contextvars.ContextVar("_in_lookup", default=False)


def _silent_in_lookups(record: logging.LogRecord) -> bool:
    """Keep an SDK from writing secret values out at DEBUG; its calls for anybody else log as ever."""
    return record.levelno >= logging.WARNING or not _in_lookup.get()


_accesses: dict[bytes, StoreAccess] = {}
_accesses_lock = threading.Lock()
_inherited: list[object] = []


def access_to(store: Store, fingerprint: bytes) -> StoreAccess:
    """Give the process's one access for *fingerprint*, made from *store* where there is none yet."""
    access = _accesses.get(fingerprint)
    if access is None:
        with _accesses_lock:
            access = _accesses.setdefault(fingerprint, StoreAccess(store))
    return access


def start_anew() -> None:
    """Forget every client, login, lock and thread of this process; the next lookup makes new ones.

    Runs by itself in a forked child.
    """
    global _accesses, _accesses_lock  # noqa: PLW0603
    # What the parent made is kept alive unused: its destructors could close connections that the parent
    # still uses, or wait for threads that do not exist here.
    _inherited.append(_accesses)
    _accesses = {}
    _accesses_lock = threading.Lock()


os.register_at_fork(after_in_child=start_anew)


def load_sdk(modules: Sequence[str], extra: str) -> None:
    """Import an SDK in the calling thread, so that a fork meanwhile cannot leave an import lock held.

    :raises MissingDependencyError: naming the extra.
    """
    missing: str | None = None
    with _collector_paused():
        for module in modules:
            try:
                importlib.import_module(module)
            except ImportError as error:
                missing = error.name or module
                break
    if missing is not None:
        raise MissingDependencyError(
            f"{missing} is not installed. Install it with: pip install 'airflow-providers-secrets[{extra}]'"
        )


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Allocate much without setting off collections of Airflow's whole heap, which costs more than the work."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()

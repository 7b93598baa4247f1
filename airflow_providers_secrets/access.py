"""The one way to a store: one client, one login, bounded time, one retry layer."""

from __future__ import annotations

import contextlib
import contextvars
import gc
import importlib
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from airflow_providers_secrets.bounded import Bounded
from airflow_providers_secrets.errors import (
    LookupFailed,
    MissingDependencyError,
    SecretNotFound,
    SecretsError,
)
from airflow_providers_secrets.forks import unforked
from airflow_providers_secrets.outcomes import ADVICE, ERRORS, RETRIED, TLS_REASONS, Outcome
from airflow_providers_secrets.store import Store

if TYPE_CHECKING:
    from tenacity import RetryCallState

Result = TypeVar("Result")

MAX_VALUE_LENGTH: Final = 1024 * 1024
"""The longest text taken from a store, in characters; every store's own limit is far below."""

MAX_LISTING_LENGTH: Final = 8 * 1024 * 1024
"""The most that one listing holds, names and texts, in characters."""

MAX_OVERDUE: Final = 8
"""How many calls may hang beyond their deadline before further ones are refused at once."""

BACKOFF: Final[Mapping[Outcome, tuple[float, float]]] = {
    Outcome.UNAVAILABLE: (0.1, 2.0),
    Outcome.THROTTLED: (1.0, 5.0),
}
"""Bounds in seconds of the first and of the longest pause before another attempt, drawn with full jitter
(AWS Architecture Blog, "Exponential Backoff And Jitter")."""


class StoreAccess:
    """Reads names of one store, from any number of threads.

    Nothing is made before the first lookup. A lookup runs in a thread of its own, since no SDK's
    time-outs bound a server that sends a byte now and then: the caller leaves it behind at the deadline.
    That also keeps an exception that Airflow raises from a signal (``AirflowTaskTimeout``) out of the SDK's
    locks.

    :param store: any backend with these connection options.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._clients: list[Any] = []
        self._overdue = 0
        for name in store.telltale_loggers:
            logging.getLogger(name).addFilter(_silent_in_lookups)

    def ask(self, name: str, within: float) -> str | None:
        """Give the store's text of *name*, or ``None`` where it proves that there is none.

        :param within: seconds after which the call is left behind.
        :raises LookupFailed: for everything else.
        :raises MissingDependencyError: where the SDK is not installed.
        """
        try:
            return self._in_time(name, within, lambda client: self._fetched(client, name))
        except SecretNotFound:
            return None

    def ask_for_all(self, prefix: str, within: float) -> dict[str, str | None]:
        """Give everything whose name starts with *prefix*: the texts, or ``None`` where only the name is known.

        :param within: seconds after which the call is left behind.
        :raises LookupFailed: where the listing is not to be had, or larger than :data:`MAX_LISTING_LENGTH`.
        :raises MissingDependencyError: where the SDK is not installed.
        """
        try:
            return self._in_time(prefix, within, lambda client: self._listed(client, prefix))
        except SecretNotFound:
            return {}

    def _in_time(self, name: str, within: float, exchange: Callable[[Any], Result]) -> Result:
        load_sdk((*self._store.sdk, "tenacity"), self._store.extra)
        if self._overdue >= MAX_OVERDUE:
            raise self.failure(name, Outcome.UNAVAILABLE, f"{MAX_OVERDUE} earlier calls still hang")
        call = Bounded(lambda given_up: self._exchanged(name, within, exchange, given_up), self._count_overdue)
        if not call.finished_within(within):
            raise self.failure(name, Outcome.UNAVAILABLE, f"no answer within {within:.3g} s")
        # The error is raised from here, so that no frame of the SDK hangs on the traceback: their local
        # variables hold requests and answers.
        if call.error is not None:
            raise call.error
        if call.result is None:
            raise self.failure(name, Outcome.UNAVAILABLE, "the lookup's thread was ended")
        return call.result

    def _exchanged(
        self, name: str, within: float, exchange: Callable[[Any], Result], given_up: threading.Event
    ) -> Result:
        """Exchange with the store until the answer is final; pauses and attempts end when *given_up* is set.

        :raises SecretsError: any failure, as this package's own error and unchained.
        """
        # Airflow requires and has loaded it; our own modules stay importable without.
        from tenacity import Retrying, retry_if_exception, sleep_using_event, stop_after_attempt, stop_before_delay
        from tenacity.stop import stop_when_event_set

        _in_lookup.set(True)
        retrying = Retrying(
            retry=retry_if_exception(lambda error: self._outcome(error) in RETRIED),
            wait=self._pause,
            stop=stop_when_event_set(given_up)
            | stop_after_attempt(self._store.max_attempts)
            | stop_before_delay(within),
            sleep=sleep_using_event(given_up),
            reraise=True,
        )
        try:
            answer: Result = retrying(self._attempt, exchange)
            return answer
        except SecretsError as error:
            failure: SecretsError = error
        except Exception as error:  # noqa: BLE001  # every failure is classified
            code = next(iter(self._store.codes(error)), type(error).__name__)
            failure = self.failure(name, self._outcome(error), code)
        raise failure

    def _attempt(self, exchange: Callable[[Any], Result]) -> Result:
        """Make one exchange, and one more on a new client where the login had expired."""
        client = self._client()
        try:
            return exchange(client)
        except Exception as error:
            if self._store.expired_login.isdisjoint(self._store.codes(error)):
                raise
            self._forget(client)
            return exchange(self._client())

    def _fetched(self, client: Any, name: str) -> str:
        answer = self._store.fetch(client, name)
        if answer.name is not None and answer.name != name:
            raise self.failure(name, Outcome.INVALID, "the answer is for another name")
        if len(answer.text) > MAX_VALUE_LENGTH:
            raise self.failure(name, Outcome.INVALID, f"its value is longer than {MAX_VALUE_LENGTH} characters")
        return answer.text

    def _listed(self, client: Any, prefix: str) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        length = 0
        for listed in self._store.listing(client, prefix):
            name, text = listed.name, listed.text
            length += len(name) + len(text or "")
            if length > MAX_LISTING_LENGTH:
                raise self.failure(prefix, Outcome.INVALID, f"all of it is longer than {MAX_LISTING_LENGTH} characters")
            # What is too long to be answered is left to a read of its own, which says so.
            found[name] = text if text is None or len(text) <= MAX_VALUE_LENGTH else None
        return found

    def _client(self) -> Any:
        with self._lock:
            if not self._clients:
                # Making a client imports more of its SDK.
                with unforked(), _collector_paused():
                    for module in self._store.late_imports:
                        with contextlib.suppress(ImportError):
                            importlib.import_module(module)
                    self._clients.append(self._store.connect())
            return self._clients[-1]

    def _forget(self, client: Any) -> None:
        with self._lock:
            if client in self._clients:
                self._clients.remove(client)

    def _outcome(self, error: BaseException) -> Outcome | None:
        """Classify *error* by its most specific code that the store's table knows, or OpenSSL's."""
        if isinstance(error, SecretsError) or not isinstance(error, Exception):
            return None
        known = (self._store.outcomes.get(code) or TLS_REASONS.get(code) for code in self._store.codes(error))
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

    def failure(self, name: str, outcome: Outcome | None, code: str) -> LookupFailed:
        """Make the error of a lookup of *name*."""
        outcome = outcome or Outcome.UNAVAILABLE
        advice = self._store.advice.get(outcome) or ADVICE[outcome]
        return ERRORS[outcome](self._store.store, name, code, advice)

    def _count_overdue(self, change: int) -> None:
        with self._lock:
            self._overdue += change


_in_lookup = contextvars.ContextVar("_in_lookup", default=False)


def _silent_in_lookups(record: logging.LogRecord) -> bool:
    """Keep an SDK from writing secret values out at DEBUG; its calls for anybody else log as ever."""
    return record.levelno >= logging.WARNING or not _in_lookup.get()


def load_sdk(modules: Sequence[str], extra: str) -> None:
    """Import an SDK.

    :raises MissingDependencyError: naming the extra.
    """
    if all(sys.modules.get(module) for module in modules):
        return
    missing: str | None = None
    with unforked(), _collector_paused():
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

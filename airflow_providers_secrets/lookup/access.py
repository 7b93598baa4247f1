"""The only path to a store: one client, one login, bounded time, one retry layer."""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)
from tenacity.stop import stop_when_event_set

from airflow_providers_secrets.errors import LookupFailed, MissingDependencyError, SecretNotFound, SecretsError
from airflow_providers_secrets.lookup.config import StoreConfig
from airflow_providers_secrets.lookup.deadline import DeadlineCall, roomy
from airflow_providers_secrets.lookup.forks import collector_paused, no_fork
from airflow_providers_secrets.lookup.outcomes import CHANGES, ERRORS, RETRIED, TOO_MUCH, advice
from airflow_providers_secrets.stores.base import COMMON_OUTCOMES, MALFORMED, Outcome, Store, Turn, seconds_left

if TYPE_CHECKING:
    from airflow_providers_secrets.stores.capabilities import Lists

Result = TypeVar("Result")

MAX_VALUE_LENGTH: Final = 1024 * 1024
"""The longest text accepted from a store, in characters; every store's own limit is far lower."""

MAX_LISTING_LENGTH: Final = 8 * 1024 * 1024
"""The maximum size of one listing, names and texts together, in characters."""

MAX_OVERDUE: Final = 8
"""How many calls may hang beyond their deadline before further ones are refused at once."""

OVERDUE_PROBE: Final = 60.0
"""Seconds after the last call that hung before further ones are made, to find out whether the store still hangs."""

ABOUT_NOW: Final = 0.01
"""Seconds before the deadline in which a failure to answer is reported as a missed deadline."""

clock = time.monotonic

BACKOFF: Final[Mapping[Outcome, tuple[float, float]]] = {
    Outcome.UNAVAILABLE: (0.1, 2.0),
    Outcome.THROTTLED: (1.0, 5.0),
}
"""Upper bounds, in seconds, of the first and of the longest pause before another attempt, with full jitter
(AWS Architecture Blog, "Exponential Backoff And Jitter")."""

LATE_IMPORTS: Final = ("encodings.idna",)
"""Modules that the standard library imports by itself to resolve a host name, whichever SDK asks."""

_stores: dict[bytes, Store] = {}
"""Every store of this process by fingerprint. A forked child inherits them: they hold neither sockets nor locks."""

_loaded: set[bytes] = set()
"""The fingerprints of the stores whose SDKs and data files are loaded."""


def store_of(config: StoreConfig) -> Store:
    """Return the process's only store for *config*, without loading its SDK."""
    store = _stores.get(config.fingerprint)
    if store is None:
        with no_fork():
            store = _stores.setdefault(config.fingerprint, config.make_store())
    return store


def loaded_store(config: StoreConfig) -> Store:
    """Return the process's only store for *config*, with its SDK and data files loaded.

    Imports run in the calling thread: in another one they would wait for modules that the caller itself is importing.

    :raises MissingDependencyError: naming the extra, if an SDK is not installed.
    """
    store = store_of(config)
    if config.fingerprint not in _loaded:
        with no_fork(), collector_paused():
            _load(store)
        _loaded.add(config.fingerprint)
    return store


@roomy
def _load(store: Store) -> None:
    load_modules(store.imports(), store.distribution)
    for module in (*LATE_IMPORTS, *store.late_imports):
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    store.preload()
    mute(store.muted_loggers)


def prepare_store_for_children(config: StoreConfig) -> None:
    """Have the store create what every child would otherwise create before its first call."""
    store = loaded_store(config)

    def prepare() -> None:
        _in_lookup.set(True)  # mutes what the SDK logs here, as in a lookup
        store.prepare_for_children()

    contextvars.copy_context().run(prepare)


def load_modules(extras: Mapping[str, str], distribution: str = Store.distribution) -> None:
    """Import modules, each given with the extra of *distribution* that installs it.

    :raises MissingDependencyError: naming the extra.
    """
    for module, extra in extras.items():
        # Even if it is in sys.modules: another thread may still be importing it, and this waits for that.
        missing: str | None = None
        try:
            importlib.import_module(module)
        except ImportError as error:
            missing = error.name or module
        if missing is not None:
            raise MissingDependencyError(
                f"{missing} is not installed. Install it with: pip install '{distribution}[{extra}]'"
            )


class StoreAccess:
    """Calls one store, from any number of threads.

    Nothing is created before the first call. Each call runs in another thread, which the caller abandons at the
    deadline: no SDK's time-outs bound a server that sends a byte now and then. That also keeps an exception that
    Airflow raises from a signal (``AirflowTaskTimeout``) out of the SDK's locks.

    :param config: which store, and how to reach it.
    """

    def __init__(self, config: StoreConfig) -> None:
        self._config = config
        self._connecting = Turn()
        self._clients: list[tuple[bytes, Any]] = []  # each with what Store.asker() returned before it was made
        self._overdue: set[DeadlineCall] = set()
        self._last_overdue = 0.0

    @property
    def clients(self) -> list[Any]:
        """The client in use, if there is one."""
        return [client for _, client in self._clients]

    def ask(self, name: str, within: float) -> str | None:
        """Return the store's text for *name*, or ``None`` if the store proves that there is none.

        :param within: seconds after which the call is abandoned.
        :raises LookupFailed: for everything else.
        :raises MissingDependencyError: if the SDK is not installed.
        """
        try:
            return self.call(name, within, lambda store, client: self._fetched(store, client, name))
        except SecretNotFound:
            return None

    def ask_for_all(self, prefix: str, within: float) -> dict[str, str | None]:
        """Return everything whose name starts with *prefix*: the texts, or ``None`` where only the name is known.

        :param within: seconds after which the call is abandoned.
        :raises LookupFailed: if the listing cannot be obtained, or is larger than :data:`MAX_LISTING_LENGTH`.
        :raises MissingDependencyError: if the SDK is not installed.
        """
        return self.call(prefix, within, lambda store, client: self._listed(store, client, prefix))

    def call(self, name: str, within: float, exchange: Callable[[Store, Any], Result], act: str = "give") -> Result:
        """Return the result of *exchange* with store and client, retried while that may help.

        :param name: the name of the subject in an error.
        :param within: seconds after which the call is abandoned.
        :param exchange: returns what the store said, never ``None``; it may be called again, in the same thread.
        :param act: the verb of an error's message: give, list, write, delete or identify.
        :raises LookupFailed: if there is no result in time.
        :raises MissingDependencyError: if the SDK is not installed.
        """
        store = loaded_store(self._config)
        if self._too_many_hang():
            raise self.failure(name, Outcome.UNAVAILABLE, f"{MAX_OVERDUE} earlier calls still hang", act=act)
        call = DeadlineCall(
            lambda given_up: self._exchanged(store, name, exchange, given_up, within, act),
            within,
            self._leave_behind,
            self._overdue.discard,
        )
        if not call.finished():
            raise self.failure(name, Outcome.UNAVAILABLE, late(within), act=act)
        # The error is raised from here, so that the traceback has no frame of the SDK: their local variables hold
        # requests and answers.
        if call.error is not None:
            raise call.error
        result: Result | None = call.result
        if result is None:
            raise self.failure(name, Outcome.UNAVAILABLE, "the lookup's thread was ended", act=act)
        return result

    def _too_many_hang(self) -> bool:
        if len(self._overdue) < MAX_OVERDUE or clock() - self._last_overdue >= OVERDUE_PROBE:
            return False
        # A signal handler may have raised just before the end of one was recorded.
        self._overdue.difference_update([call for call in list(self._overdue) if call.has_ended])
        return len(self._overdue) >= MAX_OVERDUE

    def _leave_behind(self, call: DeadlineCall) -> None:
        self._overdue.add(call)
        self._last_overdue = clock()

    def _exchanged(  # noqa: PLR0913, PLR0917  # all of them describe one call
        self,
        store: Store,
        name: str,
        exchange: Callable[[Store, Any], Result],
        given_up: threading.Event,
        within: float,
        act: str,
    ) -> Result:
        """Exchange with the store until the answer is final; pauses and attempts end when *given_up* is set.

        :raises SecretsError: for any failure, as this package's own error, unchained.
        """
        _in_lookup.set(True)
        retried = {Outcome.THROTTLED} if act in CHANGES else RETRIED
        retrying = Retrying(
            retry=retry_if_exception(lambda error: self._outcome(store, error) in retried),
            wait=lambda state: self._pause(store, state),
            stop=stop_when_event_set(given_up)
            | stop_after_attempt(self._config.max_attempts)
            | stop_before_delay(seconds_left()),
            sleep=sleep_using_event(given_up),
            reraise=True,
        )
        try:
            answer: Result = retrying(self._attempt, store, exchange)
            return answer
        except SecretsError as error:
            failure: SecretsError = error
        except Exception as error:  # noqa: BLE001  # every failure is classified
            codes = tuple(store.codes(error)) or (type(error).__name__,)
            outcome = self._outcome(store, error)
            if seconds_left() < ABOUT_NOW and (isinstance(error, TimeoutError) or outcome is Outcome.UNAVAILABLE):
                codes = (late(within), *codes)  # whichever notices it first, the caller or the SDK
            failure = self.failure(name, outcome, *codes, act=act)
        raise failure

    def _attempt(self, store: Store, exchange: Callable[[Store, Any], Result]) -> Result:
        """Make one exchange, and one more with a new client if the login had expired."""
        asker, client = self._client(store)
        try:
            with no_fork() if store.forks_wait else contextlib.nullcontext():
                return exchange(store, client)
        except Exception as error:
            if store.expired_login.isdisjoint(store.codes(error)):
                raise
            with contextlib.suppress(ValueError):
                self._clients.remove((asker, client))
        # Outside the handler: the old error's frames hold the request.
        _, client = self._client(store)
        with no_fork() if store.forks_wait else contextlib.nullcontext():
            return exchange(store, client)

    def _client(self, store: Store) -> tuple[bytes, Any]:
        """Return who asks, and the client for them, which the first thread that needs one creates.

        Other threads wait for it, each until its own deadline, and never for a thread that hangs beyond its own.
        """
        asker = store.asker()  # before the login: if that reads something newer, the next call merely logs in again
        if known := self._client_of(asker):
            return known
        with self._connecting.taken():
            known = self._client_of(asker)
            if not known:
                known = (asker, store.connect())
                self._clients[:] = [known]
            return known

    def _client_of(self, asker: bytes) -> tuple[bytes, Any] | None:
        return next((known for known in self._clients if known[0] == asker), None)

    def _fetched(self, store: Store, client: Any, name: str) -> str:
        answer = store.fetch(client, name)
        if answer.name is not None and answer.name != name:
            raise self.failure(name, Outcome.INVALID, "the answer is for another name", MALFORMED)
        if len(answer.text) > MAX_VALUE_LENGTH:
            raise self.failure(name, Outcome.INVALID, f"its value is longer than {MAX_VALUE_LENGTH} characters")
        return answer.text

    def _listed(self, store: Store, client: Any, prefix: str) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        length = 0
        for listed in cast("Lists", store).listing(client, prefix):
            if not seconds_left():  # nobody is waiting any more
                raise TimeoutError
            name, text = listed.name, listed.text
            length += len(name) + len(text or "")
            if length > MAX_LISTING_LENGTH:
                code = f"all of it is longer than {MAX_LISTING_LENGTH} characters"
                raise self.failure(prefix, Outcome.INVALID, code, TOO_MUCH)
            # A value that is too long is left to a single read, which reports that.
            found[name] = text if text is None or len(text) <= MAX_VALUE_LENGTH else None
        return found

    def _outcome(self, store: Store, error: BaseException) -> Outcome | None:
        """Classify *error* by its most specific code that a table knows."""
        if isinstance(error, SecretsError) or not isinstance(error, Exception):
            return None
        known = (store.outcomes.get(code) or COMMON_OUTCOMES.get(code) for code in store.codes(error))
        # A code that no table knows is still a failure, and never an absence.
        return next((outcome for outcome in known if outcome), Outcome.UNAVAILABLE)

    def _pause(self, store: Store, state: RetryCallState) -> float:
        error = state.outcome and state.outcome.exception()
        assert isinstance(error, Exception)  # tenacity asks after an error whose outcome is retried
        first, longest = BACKOFF[self._outcome(store, error) or Outcome.UNAVAILABLE]
        pause = wait_random_exponential(multiplier=first, max=longest)(state)
        return max(pause, store.retry_after(error) or 0.0)

    def failure(
        self, name: str, outcome: Outcome | None, *codes: str, act: str = "give", cure: str | None = None
    ) -> LookupFailed:
        """Make the error of a call about *name*; it shows the first of *codes*, and the advice for the first known one.

        :param cure: the advice, if another process supplied it: its codes are not known here.
        """
        outcome = outcome or Outcome.UNAVAILABLE
        store = store_of(self._config)
        cure = cure or advice(codes, outcome, store.advice, act)
        failure = ERRORS[outcome](self._config.title, name, codes[0], cure, act)
        failure.on_the_way = not store.on_the_way.isdisjoint(codes)
        return failure


def late(within: float) -> str:
    """Return the code of a call that had *within* seconds and missed its deadline."""
    return f"no answer within {within:.3g} s"


_in_lookup = contextvars.ContextVar("_in_lookup", default=False)


def mute(loggers: Iterable[str]) -> None:
    """Keep SDKs' loggers, and those below them, from revealing secret values; this affects only our calls."""
    roots = tuple(loggers)
    below = tuple(f"{name}." for name in roots)
    # A filter applies to its own logger only. SDK modules have created theirs by now, except those that a store names.
    made = [logger for name, logger in list(logging.Logger.manager.loggerDict.items()) if name.startswith(below)]
    for logger in (*map(logging.getLogger, roots), *made):
        if isinstance(logger, logging.Logger):  # not a mere PlaceHolder
            logger.addFilter(_silent_in_lookups)


def _silent_in_lookups(_: logging.LogRecord) -> bool:
    """Drop what an SDK logs during our calls; its calls for other code log as usual.

    Warnings are dropped too, since some quote the answer: azure-identity does with a truncated token. The lookup's own
    error reports what went wrong.
    """
    return not _in_lookup.get()

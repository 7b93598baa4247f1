"""What a store must be able to do, and how it says what went wrong; :mod:`.capabilities` has what it may do besides.

A store raises whatever its SDK raises. :mod:`airflow_providers_secrets.lookup.access` classifies that once, by
:meth:`Store.codes` and :attr:`Store.outcomes`.
"""

from __future__ import annotations

import contextlib
import contextvars
import enum
import os
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

if TYPE_CHECKING:
    import datetime as dt


class Outcome(enum.Enum):
    """How one call to a store ended.

    Only an answer that *proves* absence is :attr:`NOT_FOUND`; an error, a time-out, a proxy's bare
    404 or an unreadable answer never is.
    """

    FOUND = "found"
    NOT_FOUND = "not found"
    DENIED = "denied"
    REVOKED = "revoked"
    UNAVAILABLE = "unavailable"
    THROTTLED = "throttled"
    """A kind of UNAVAILABLE that is retried after a longer pause."""
    INVALID = "invalid"
    MISCONFIGURED = "misconfigured"


ABSENT: Final = "absent"
"""The code of a proven absence, for stores whose SDK has none of its own."""

MALFORMED: Final = "malformed answer"
"""The code of an answer that is not what the API promises."""

FOREIGN: Final = "not the store's own refusal"
"""The code, beside that of its status, of a refusal without what the API has in each: a proxy's page."""

EXISTS: Final = "exists already"
"""The code of a write that was to create a name, and found it taken."""

COMMON_OUTCOMES: Final[Mapping[str, Outcome]] = {
    ABSENT: Outcome.NOT_FOUND,
    MALFORMED: Outcome.INVALID,
    EXISTS: Outcome.INVALID,
    # OpenSSL's reasons: the wrong bundle of certificates, or a port that does not speak TLS.
    "CERTIFICATE_VERIFY_FAILED": Outcome.MISCONFIGURED,
    "WRONG_VERSION_NUMBER": Outcome.MISCONFIGURED,
}
"""What codes mean on every store; a store's own table comes first."""


REDIRECTS: Final = tuple(f"HTTP {status}" for status in (301, 302, 303, 307, 308))
"""What a store's answer never is, and what it is not asked elsewhere for."""

ON_THE_WAY: Final = frozenset({MALFORMED, FOREIGN, *REDIRECTS, "CERTIFICATE_VERIFY_FAILED", "WRONG_VERSION_NUMBER"})
"""The codes of faults on the way to every store, whose word they are not: a proxy's page in the place of an answer, a
portal that wants a login, a bundle that a host has not renewed yet."""


class StoreError(Exception):
    """Why a store, or the way to it, gave no answer, where this package says so itself.

    Holds nothing of any answer's text.

    :param codes: the most specific first; :attr:`Store.outcomes` knows at least one, unless it is UNAVAILABLE.
    :param retry_after: seconds that the server asked to wait.
    """

    def __init__(self, *codes: str, retry_after: float | None = None) -> None:
        super().__init__(", ".join(codes))
        self.codes = codes
        self.retry_after = retry_after


class Answer:
    """What a store returned for one name.

    :param text: the secret's text.
    :param name: the name that the store says it answered for, where it says so.
    """

    __slots__ = ("name", "text")

    def __init__(self, text: str, name: str | None = None) -> None:
        self.text = text
        self.name = name

    def __repr__(self) -> str:
        return f"Answer(name={self.name!r})"


class ListedSecret:
    """What a store's listing says of one name.

    :param name: the name, spelled as lookups ask for it.
    :param text: the secret's text where the listing has it; ``None`` where only a read of its own will.
    :param version: the current version in the store's spelling, where the listing has it.
    :param changed: when that version was written, where the listing has it. Aware.
    """

    __slots__ = ("changed", "name", "text", "version")

    def __init__(
        self, name: str, text: str | None = None, version: str | None = None, changed: dt.datetime | None = None
    ) -> None:
        self.name = name
        self.text = text
        self.version = version
        self.changed = changed

    def __repr__(self) -> str:
        return f"ListedSecret(name={self.name!r})"


class Written:
    """What a write did.

    :param created: whether the name did not exist before.
    :param version: the version written, in the store's spelling, where it has versions.
    """

    __slots__ = ("created", "version")

    def __init__(self, *, created: bool, version: str | None = None) -> None:
        self.created = created
        self.version = version

    def __repr__(self) -> str:
        return f"Written(created={self.created}, version={self.version!r})"


class Identity:
    """Who the store says is asking.

    :param who: the one name that an administrator would grant rights to (an ARN, an entity, an e-mail address).
    :param details: whatever else helps to recognise it; never a credential.
    """

    __slots__ = ("details", "who")

    def __init__(self, who: str, details: Mapping[str, str] | None = None) -> None:
        self.who = who
        self.details = dict(details or {})

    def __repr__(self) -> str:
        return f"Identity({self.who!r})"


MAX_CONNECTIONS: Final = 16
"""How many connections a client keeps open, as many as lookups are awaited at once. More threads are answered as well,
over connections that end with the answer. urllib3 fills a pool with blanks first, which 64 made felt in each fork."""

deadline: contextvars.ContextVar[float] = contextvars.ContextVar("deadline", default=float("inf"))
"""When nobody waits any more for the call under way, by ``time.monotonic``; set by the lookup around each call."""


given_up: contextvars.ContextVar[Callable[[], bool]] = contextvars.ContextVar("given_up", default=lambda: False)
"""Tells whether nobody waits any more for what this code does, be it before the deadline, since a signal ended it."""


def seconds_left() -> float:
    """Return the seconds until :data:`deadline`, never negative. A transport bounds its waits by it."""
    return max(0.0, deadline.get() - time.monotonic())


CHUNK: Final = 64 * 1024
"""The most that is read of a body at a time, in bytes."""


def arriving(raw: Any) -> Iterator[bytes]:
    """Yield a body's parts as they come, undecoded.

    :param raw: urllib3's answer. Before its 2.1 a part is waited for until it is full.
    """
    read = getattr(raw, "read1", raw.read)
    while part := read(CHUNK, decode_content=False):
        yield part


def bounded(parts: Iterable[bytes], most: int) -> Iterator[bytes]:
    """Yield the *parts* of an answer until nobody waits any more.

    :param most: the longest answer, in bytes.
    :raises StoreError: as soon as one is longer.
    :raises TimeoutError: at the first part after the deadline.
    """
    length = 0
    for part in parts:
        length += len(part)
        if length > most:
            raise too_long(most)
        if not seconds_left():
            raise TimeoutError
        yield part


def too_long(most: int) -> StoreError:
    """Return the error of an answer that has more than *most* bytes."""
    return StoreError(f"the answer is longer than {most} bytes", MALFORMED)


def whole_body(raw: Any, announced: str | None, most: int) -> bytes:
    """Read all of a body, *bounded*.

    :param announced: its header ``Content-Length``; ``None`` where that is not its own.
    :raises StoreError: where it is too long, or shorter than announced.
    :raises TimeoutError: once nobody waits any more.
    """
    body = b"".join(bounded(arriving(raw), most))
    if announced and announced.isdigit() and len(body) < int(announced):
        raise StoreError("the answer ended early")
    return body


class Turn:
    """Lets one thread in at a time, and waits for no thread that is past its own deadline, or given up before.

    Such a one may hang for long, in a server that sends a byte now and then, and nobody waits for what it will get.
    """

    def __init__(self) -> None:
        self._current = _Lock()

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Hold the turn.

        :raises TimeoutError: where it is not to be had before the caller's own deadline.
        """
        while True:
            left = seconds_left()
            if not left:  # what starts late must not begin what nobody waits for
                raise TimeoutError
            lock = self._current
            if lock.acquire(min(left, lock.seconds_left())):
                break
            # Another one may hold it by now, who has more time. Of those who find that none has, all go on to one lock.
            if not lock.seconds_left() and seconds_left() and self._current is lock:
                self._current = lock.successors.setdefault(None, _Lock())
        try:
            yield
        finally:
            lock.release()


class _Lock:
    """A lock, and how long its holder counts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: tuple[float, Callable[[], bool]] | None = None
        self.successors: dict[None, _Lock] = {}
        """The one lock that stands in its place, once there is one. A dictionary's ``setdefault`` makes no second."""

    def acquire(self, seconds: float) -> bool:
        if not self._lock.acquire(timeout=min(seconds, threading.TIMEOUT_MAX)):
            return False
        self._holder = deadline.get(), given_up.get()
        return True

    def release(self) -> None:
        self._holder = None
        self._lock.release()

    def seconds_left(self) -> float:
        """Return for how long to wait for the holder; for ever where there is none, who would be about to come."""
        holder = self._holder  # which may leave meanwhile
        if holder is None:
            return float("inf")
        until, is_given_up = holder
        return 0.0 if is_given_up() else max(0.0, until - time.monotonic())


def environment(wanted: Callable[[str], bool]) -> list[tuple[str, str]]:
    """Return the environment variables whose names are *wanted*, sorted; other threads may be changing them."""
    for _ in range(100):
        with contextlib.suppress(KeyError, RuntimeError):
            return [(name, os.environ[name]) for name in sorted(os.environ) if wanted(name)]
    return []


def codes_of_page(status: object) -> tuple[str, ...]:
    """Return the codes of an error that came without what the API has in each.

    A refusal like that is not the store's word. An outage or throttling may be: a load balancer of its own wrote it.
    """
    is_refusal = isinstance(status, int) and 400 <= status < 500 and status != 429  # noqa: PLR2004
    return (f"HTTP {status}", FOREIGN) if is_refusal else (f"HTTP {status}",)


LONGEST_WAIT: Final = 1e6
"""The most seconds of a Retry-After, eleven days: longer than any deadline, and a number that a timer takes."""

wall_clock = time.time


def seconds_to_wait(retry_after: str) -> float | None:
    """Read the header Retry-After, in seconds or as a date (RFC 9110, section 10.2.3); ``None`` where it is neither."""
    if retry_after.isascii() and retry_after.isdigit():
        return min(float(retry_after), LONGEST_WAIT)
    if not retry_after:
        return None
    # Rare, and a first lookup need not import it.
    from calendar import timegm
    from email.utils import parsedate

    with contextlib.suppress(ValueError, TypeError, IndexError, OverflowError):  # whatever a date makes of other text
        date = parsedate(retry_after)
        return None if date is None else min(max(0.0, timegm(date) - wall_clock()), LONGEST_WAIT)
    return None


class Store(ABC):
    """One vendor's store, as one set of connection options reaches it.

    Any number of threads may use one. It starts no thread and opens nothing before :meth:`connect`; what holds a
    socket, a lock or a login is the client, which a forked child makes anew.

    :param options: the options that identify the client, coerced, each with its default where none was given.
    """

    distribution: ClassVar[str] = "airflow-providers-secrets"
    """What pip knows the store's package by, for the message that an SDK is not installed."""
    sdk: ClassVar[Mapping[str, str]]
    """The modules to import before connecting, each with the extra of :attr:`distribution` that brings it."""
    late_imports: Sequence[str] = ()
    """What the SDK imports by itself at a first call. It is imported with the SDK, in the thread of the caller, so that
    no fork falls into it; where a version of the SDK has no such module, none is needed."""
    forks_wait: bool = False
    """Whether a fork of another thread waits for an exchange under way, since a library of the SDK would take harm. It
    waits for a second at most (``lookup.forks.LONGEST_WAIT``)."""
    outcomes: ClassVar[Mapping[str, Outcome]]
    """What the SDK's codes mean. A code that no table knows is UNAVAILABLE."""
    advice: ClassVar[Mapping[str | Outcome, str]] = {}
    """The one thing to do about a code or an outcome, where the store's own words help more than general ones."""
    on_the_way: frozenset[str] = ON_THE_WAY
    """The codes of faults before the store: the process's or host's own, or of what answers in the store's place."""
    expired_login: frozenset[str] = frozenset()
    """The codes after which one new client is made and asked, once per attempt."""
    env_prefixes: Sequence[str] = ()
    """Prefixes of the environment variables that say where the store is or who asks it, as these options read them."""
    muted_loggers: Sequence[str] = ()
    """The SDK's loggers; they, and those below them, write nothing in our calls: they quote requests and answers.

    Of those below, one that the SDK makes after its import, with a client or at a first call, is named as well. What
    logs without a logger of its own logs by ``root``."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options

    def imports(self) -> Mapping[str, str]:
        """Return the modules that *these* options need, each with its extra; :attr:`sdk` unless a store says more."""
        return self.sdk

    def preload(self) -> None:  # noqa: B027  # most have nothing to read
        """Read whatever files of the SDK :meth:`connect` would read, once in a process.

        Runs after :meth:`imports` were imported, possibly just before a fork: no socket, no thread, no network, no lock
        held, no credential of the environment. Its result is inherited by every child.
        """

    def prepare_for_children(self) -> None:  # noqa: B027  # most have a client that is made quickly
        """Make what each child would make alike before its first call; :meth:`connect` takes it in a child alone.

        Runs just before a fork, in the forking thread: no socket, no thread, no login, no network, no lock held. Not
        where that fork is for one task alone, which may look nothing up.
        Whatever it reads of environment and files is compared by the child that takes it: they may have changed.
        """

    def asker(self) -> bytes:
        """Return a digest of who asks, as far as the files tell that a login reads; empty where it reads none.

        Entries that outlive the process are filed under it, and it is asked for around each call: so it must be cheap,
        and stay the same while a file is merely renewed for the same identity. Once it changes, a new client is made.
        """
        return b""

    @abstractmethod
    def connect(self) -> Any:
        """Make the client. It may log in here or at its first call."""

    @abstractmethod
    def fetch(self, client: Any, name: str) -> Answer:
        """Read one name, by one request once logged in."""

    def codes(self, error: Exception) -> Iterator[str]:
        """Yield the codes of *error* by which :attr:`outcomes` may know it, the most specific first.

        These are a :class:`StoreError`'s own ones; or OpenSSL's reason and the class names of an SDK's error.
        """
        if isinstance(error, StoreError):
            yield from error.codes
            return
        yield from re.findall(r"\[SSL: ([A-Z0-9_]{1,60})\]", str(error))
        yield from (kind.__name__ for kind in type(error).__mro__)

    def retry_after(self, error: Exception) -> float | None:
        """Return the seconds that the store asked to wait, where it did."""
        return error.retry_after if isinstance(error, StoreError) else None

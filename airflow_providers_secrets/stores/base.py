"""What a store must be able to do, and how it reports failures; :mod:`.capabilities` has what it may do in addition.

A store raises whatever its SDK raises. The lookup classifies that in one place, by :meth:`Store.codes` and
:attr:`Store.outcomes`.
"""

from __future__ import annotations

import contextlib
import contextvars
import enum
import errno
import itertools
import os
import re
import ssl
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from airflow_providers_secrets import __version__

if TYPE_CHECKING:
    import datetime as dt


class Outcome(enum.Enum):
    """How one call to a store failed.

    Only an answer that *proves* absence is :attr:`NOT_FOUND`. An error, a time-out, a proxy's bare
    404 or an unreadable answer never is.
    """

    NOT_FOUND = "not found"
    DENIED = "denied"
    REVOKED = "revoked"
    UNAVAILABLE = "unavailable"
    THROTTLED = "throttled"
    """A kind of UNAVAILABLE that is retried after a longer pause."""
    INVALID = "invalid"
    MISCONFIGURED = "misconfigured"


ABSENT: Final = "absent"
"""The code of a proven absence, for stores whose SDK has no code of its own."""

MALFORMED: Final = "malformed answer"
"""The code of an answer that does not match the API's specification."""

FOREIGN: Final = "not the store's own refusal"
"""The code, besides the HTTP status, of a refusal that lacks what every refusal of the API contains: a proxy's page."""

LOGIN_REFUSED: Final = "login refused"
"""The code of a login that was refused, and would be again."""

LOGIN_UNAVAILABLE: Final = "login unavailable"
"""The code of a login without an answer, or with one that says nothing of the credentials."""

BAD_CREDENTIAL: Final = "unusable credential"
"""The code of a login's file, variable or option that holds none or cannot be read. Vault's logins pass on Google's."""

BAD_BUNDLE: Final = "unusable CA bundle"
"""The code of a file of certificates that holds none, or cannot be read."""

EXISTS: Final = "exists already"
"""The code of a write that should create a name which already exists."""

CONNECTION_REFUSED: Final = "connection refused"
CUT_OFF: Final = "connection closed without an answer"
NO_ROUTE: Final = "no route to the host"
NOT_ANSWERED: Final = "nothing received in time"
NOT_CONNECTED: Final = "no connection within connect_timeout"
NOT_RESOLVED: Final = "host name not resolved"
NOT_THROUGH_PROXY: Final = "no connection through the proxy"

NETWORK_FAILURES: Final[Mapping[str | int | None, str]] = {
    "ConnectionRefusedError": CONNECTION_REFUSED,
    **dict.fromkeys(("ConnectionResetError", "ConnectionAbortedError", "BrokenPipeError"), CUT_OFF),
    **dict.fromkeys((errno.EHOSTUNREACH, errno.ENETUNREACH), NO_ROUTE),
    **dict.fromkeys(("ReadTimeout", "ReadTimeoutError"), NOT_ANSWERED),
    **dict.fromkeys(("ConnectTimeout", "ConnectTimeoutError"), NOT_CONNECTED),
    "gaierror": NOT_RESOLVED,
    **dict.fromkeys(("ProxyError", "ProxyConnectionError"), NOT_THROUGH_PROXY),
}
"""The codes of the network's failures, by the class or number of Python's own errors, or by the class that requests,
urllib3 or botocore has for them. An SDK wraps these in an error that is the same for several of them, so the innermost
counts. urllib3's ReadTimeoutError may be about a TLS handshake or a proxy, which have connect_timeout seconds."""

UNTRUSTED: Final = "CERTIFICATE_VERIFY_FAILED"
NO_TLS: Final = "WRONG_VERSION_NUMBER"
NOT_VALID_NOW: Final = "certificate not valid now"
OF_ANOTHER_HOST: Final = "certificate of another host"

CERTIFICATE_FAULTS: Final[Mapping[int, str]] = {
    **dict.fromkeys((9, 10), NOT_VALID_NOW),
    **dict.fromkeys((62, 64), OF_ANOTHER_HOST),
}
"""The codes of certificates whose issuer is not at fault, by OpenSSL's number (``X509_V_ERR_…`` in x509_vfy.h): not yet
valid, expired, for another host name or address."""

COMMON_OUTCOMES: Final[Mapping[str, Outcome]] = {
    ABSENT: Outcome.NOT_FOUND,
    MALFORMED: Outcome.INVALID,
    EXISTS: Outcome.INVALID,
    # OpenSSL's reasons: the wrong CA bundle, or a port that does not speak TLS.
    UNTRUSTED: Outcome.MISCONFIGURED,
    NO_TLS: Outcome.MISCONFIGURED,
}
"""What codes mean on every store; a store's own table comes first."""


REDIRECTS: Final = tuple(f"HTTP {status}" for status in (301, 302, 303, 307, 308))
"""The codes of redirects. A store's own answer never is one, and none is followed to another host."""

ON_THE_WAY: Final = frozenset({MALFORMED, FOREIGN, *REDIRECTS, UNTRUSTED, NO_TLS, BAD_CREDENTIAL, BAD_BUNDLE})
"""The codes of failures on the way to any store, which are not the store's own answer: a proxy's page instead of an
answer, a captive portal, a CA bundle that the host has not renewed yet."""


class StoreError(Exception):
    """Why a store, or the way to it, gave no answer, if this package rather than the SDK detects it.

    Contains no text of any answer.

    :param codes: the most specific first; :attr:`Store.outcomes` has at least one, unless the outcome is UNAVAILABLE.
    :param retry_after: seconds that the server asked to wait.
    """

    def __init__(self, *codes: str, retry_after: float | None = None) -> None:
        super().__init__(", ".join(codes))
        self.codes = codes
        self.retry_after = retry_after


class Answer:
    """What a store returned for one name.

    :param text: the secret's text.
    :param name: the name that the store says it answered for, if it says so.
    """

    __slots__ = ("name", "text")

    def __init__(self, text: str, name: str | None = None) -> None:
        self.text = text
        self.name = name

    def __repr__(self) -> str:
        return f"Answer(name={self.name!r})"


class ListedSecret:
    """What a store's listing contains for one name.

    :param name: the name, spelled as lookups request it.
    :param text: the secret's text if the listing has it; ``None`` if only a separate read returns it.
    :param version: the current version in the store's spelling, if the listing has it.
    :param changed: when that version was written; from some stores, when the secret itself was made or last changed. A
        timezone-aware datetime.
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
    """The result of a write.

    :param created: whether the name did not exist before.
    :param version: the version written, in the store's spelling, if the store has versions.
    """

    __slots__ = ("created", "version")

    def __init__(self, *, created: bool, version: str | None = None) -> None:
        self.created = created
        self.version = version

    def __repr__(self) -> str:
        return f"Written(created={self.created}, version={self.version!r})"


class Identity:
    """The identity that the store sees.

    :param who: the one name that an administrator would grant rights to (an ARN, an entity, an e-mail address).
    :param details: whatever else helps to recognise the identity; never a credential.
    """

    __slots__ = ("details", "who")

    def __init__(self, who: str, details: Mapping[str, str] | None = None) -> None:
        self.who = who
        self.details = dict(details or {})

    def __repr__(self) -> str:
        return f"Identity({self.who!r})"


USER_AGENT: Final = f"airflow-providers-secrets/{__version__}"
"""How this package introduces itself to a store."""

MAX_CONNECTIONS: Final = 16
"""Maximum number of connections that a client keeps open, which is also how many lookups are awaited at once. More
threads are served as well, over connections that are closed after the answer. urllib3 fills a pool with placeholders
first: 64 of them took a noticeable time in each fork."""

deadline: contextvars.ContextVar[float] = contextvars.ContextVar("deadline", default=float("inf"))
"""The time, by ``time.monotonic``, after which nobody waits for the current call; set by the lookup for each call."""


given_up: contextvars.ContextVar[Callable[[], bool]] = contextvars.ContextVar("given_up", default=lambda: False)
"""Returns whether nobody waits for the current call any more, even before the deadline: a signal ended the lookup."""


def seconds_left() -> float:
    """Return the seconds until :data:`deadline`, never negative. Transports wait no longer than that."""
    return max(0.0, deadline.get() - time.monotonic())


GRACE: Final = 0.5
"""Seconds that a transport may wait beyond the deadline, so that the deadline is what ends a call and is reported."""

CHUNK: Final = 64 * 1024
"""Maximum number of bytes read of a body at a time."""


def arriving(raw: Any) -> Iterator[bytes]:
    """Yield a body's parts as they arrive, undecoded.

    :param raw: urllib3's response. urllib3 before 2.2 waits until a part is full.
    """
    read = getattr(raw, "read1", raw.read)
    while part := read(CHUNK, decode_content=False):
        yield part


def bounded(parts: Iterable[bytes], most: int) -> Iterator[bytes]:
    """Yield the *parts* of an answer until the deadline.

    :param most: the maximum length of the answer, in bytes.
    :raises StoreError: as soon as the answer is longer.
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
    """Return the error for an answer of more than *most* bytes."""
    return StoreError(f"the answer is longer than {most} bytes", MALFORMED)


def whole_body(raw: Any, announced: str | None, most: int) -> bytes:
    """Read a whole body, :func:`bounded`.

    :param announced: the header ``Content-Length``; ``None`` if it does not apply to this body.
    :raises StoreError: if the body is too long, or shorter than announced.
    :raises TimeoutError: once the deadline has passed.
    """
    body = b"".join(bounded(arriving(raw), most))
    if announced and announced.isdigit() and len(body) < int(announced):
        raise StoreError("the answer ended early")
    return body


class Turn:
    """A mutex that does not wait for a holder whose own deadline has passed or whose lookup was given up before.

    Such a holder may hang for long, on a server that sends a byte now and then, and nobody waits for its result.
    """

    def __init__(self) -> None:
        self._current = _Lock()

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Hold the turn.

        :raises TimeoutError: if the caller's own deadline passes first.
        """
        while True:
            left = seconds_left()
            if not left:  # do not begin what nobody waits for
                raise TimeoutError
            lock = self._current
            if lock.acquire(min(left, lock.seconds_left())):
                break
            # By now another holder, with time left, may have it. If none has, all waiting threads move on to the same
            # successor.
            if not lock.seconds_left() and seconds_left() and self._current is lock:
                self._current = lock.successors.setdefault(None, _Lock())
        try:
            yield
        finally:
            lock.release()


class _Lock:
    """A lock, and how long its holder is worth waiting for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: tuple[float, Callable[[], bool]] | None = None
        self.successors: dict[None, _Lock] = {}
        """The one lock that replaces it, once there is one. A dictionary, since ``setdefault`` never sets a second."""

    def acquire(self, seconds: float) -> bool:
        if not self._lock.acquire(timeout=min(seconds, threading.TIMEOUT_MAX)):
            return False
        self._holder = deadline.get(), given_up.get()
        return True

    def release(self) -> None:
        self._holder = None
        self._lock.release()

    def seconds_left(self) -> float:
        """Return how long to wait for the holder; infinity if there is none, since one may be about to register."""
        holder = self._holder  # read once: it may be released meanwhile
        if holder is None:
            return float("inf")
        until, is_given_up = holder
        return 0.0 if is_given_up() else max(0.0, until - time.monotonic())


REFUSAL_MEMO: Final = 30.0
"""Seconds without a further login after one that was refused, or that did not help."""

clock = time.monotonic
"""The clock of logins and tokens."""


class LoginGuard:
    """Repeats a login's refusal for :data:`REFUSAL_MEMO` seconds instead of logging in: that could lock the account.

    Its owner lets one thread at a time log in.
    """

    def __init__(self) -> None:
        self._refusal: tuple[tuple[str, ...], float] = (), 0.0
        """Its codes, and until when it is repeated. In one, since a login that was left behind may end at any time."""

    @property
    def is_closed(self) -> bool:
        """Whether a login was refused so short a time ago that none is tried."""
        return clock() < self._refusal[1]

    @contextlib.contextmanager
    def login(self) -> Iterator[bool]:
        """Let the block log in, and remember its refusal.

        Yields whether the last login was refused: what it had read from a file may have been replaced since.

        :raises StoreError: the latest refusal, without running the block, if that is too recent.
        """
        codes, until = self._refusal
        if clock() < until:
            raise StoreError(*codes)
        try:
            yield bool(codes)
        except StoreError as fault:
            if LOGIN_REFUSED in fault.codes:
                self._refusal = fault.codes, clock() + REFUSAL_MEMO
            raise
        self._refusal = (), 0.0


class PageTokens:
    """The page tokens of one listing. A token that repeats, or one too many, means that the listing never ends.

    :param most: maximum number of pages.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: set[str] = set()

    def accept(self, token: str) -> str:
        """Return *token*, the one of the next page.

        :raises StoreError: if the listing does not end.
        :raises TimeoutError: once the deadline has passed.
        """
        if token in self._seen or len(self._seen) + 1 >= self._most:
            raise StoreError("the listing does not end", MALFORMED)
        if not seconds_left():
            raise TimeoutError
        self._seen.add(token)
        return token


def environment(wanted: Callable[[str], bool]) -> list[tuple[str, str]]:
    """Return the environment variables whose names are *wanted*, sorted, even while other threads change them."""
    for _ in range(100):
        with contextlib.suppress(KeyError, RuntimeError):
            return [(name, os.environ[name]) for name in sorted(os.environ) if wanted(name)]
    return []


def codes_of_page(status: object) -> tuple[str, ...]:
    """Return the codes of an error answer that lacks what every error of the API contains.

    Such a refusal is not the store's own. An outage or throttling may be: the store's load balancer may have sent it.
    """
    is_refusal = isinstance(status, int) and 400 <= status < 500 and status != 429  # noqa: PLR2004
    return (f"HTTP {status}", FOREIGN) if is_refusal else (f"HTTP {status}",)


def wrapped(error: BaseException) -> list[BaseException]:
    """Return *error* and the errors that it shows as its causes, and azure-core's inner ones; the innermost last.

    Of a failed handshake through a proxy, urllib3 keeps the cause as an argument alone.
    """
    found: list[BaseException] = []
    waiting: list[object] = [error]
    for one in waiting:  # which grows
        if isinstance(one, BaseException) and not any(one is other for other in found):
            found.append(one)
            handled = None if one.__suppress_context__ else one.__context__
            waiting += (handled, one.__cause__, getattr(one, "inner_exception", None), *one.args)
    return found


def codes_of_network(error: BaseException) -> Iterator[str]:
    """Yield what happened to the connection, with its other end and without; nothing, if *error* wraps no such failure.

    That end may be a proxy, or the server of a login.
    """
    found = wrapped(error)
    kinds = [[*(kind.__name__ for kind in type(one).__mro__), getattr(one, "errno", None)] for one in reversed(found)]
    code = next((NETWORK_FAILURES[kind] for kind in itertools.chain(*kinds) if kind in NETWORK_FAILURES), None)
    if code is None:
        return
    tunnels = (re.match(r"Tunnel connection failed: (\d{3})\b", str(one)) for one in found)  # http.client's text
    refused = next(filter(None, tunnels), None)
    yield f"HTTP {refused[1]} from the proxy" if refused else f"{code}{_other_end(found)}"
    yield code


def codes_of_certificate(error: BaseException) -> Iterator[str]:
    """Yield what is wrong with a server's certificate, with the server and without; nothing, if nothing is known."""
    found = wrapped(error)
    for one in found:
        if isinstance(one, ssl.SSLCertVerificationError) and hasattr(one, "verify_code"):
            said, fault = one.verify_message.rstrip("."), CERTIFICATE_FAULTS.get(one.verify_code, UNTRUSTED)
        elif type(one).__name__ == "CertificateError":  # urllib3 has compared the names itself; its text quotes theirs
            said, fault = "certificate is not valid for this host", OF_ANOTHER_HOST
        else:
            continue
        yield from (f"{UNTRUSTED}: {said}{_other_end(found)}", fault, UNTRUSTED)
        return


def _other_end(found: Sequence[BaseException]) -> str:
    """Return, for a message, the host and port that urllib3 keeps in an error; empty if there are none."""
    for one in reversed(found):
        end = vars(one).get("conn") or vars(one).get("pool") or next(iter(one.args), None)
        host, port = getattr(end, "host", None), getattr(end, "port", None)
        # An unencoded "/" in a proxy's password makes its user the host, and ends up in the path with all that follows.
        proxy = getattr(getattr(end, "proxy", None), "path", None) or ""
        if isinstance(host, str) and isinstance(port, int) and "@" not in proxy:
            return f" ({host} port {port})"
    return ""


LONGEST_WAIT: Final = 1e6
"""Maximum number of seconds taken from a Retry-After, eleven days: longer than any deadline, and valid for a timer."""

wall_clock = time.time


def seconds_to_wait(retry_after: str) -> float | None:
    """Read the header Retry-After, in seconds or as a date (RFC 9110, section 10.2.3); ``None`` if it is neither."""
    if retry_after.isascii() and retry_after.isdigit():
        return min(float(retry_after), LONGEST_WAIT)
    if not retry_after:
        return None
    # Imported late: it is rarely needed, and would slow every first lookup.
    from calendar import timegm
    from email.utils import parsedate

    with contextlib.suppress(ValueError, TypeError, IndexError, OverflowError):  # raised for text that is no date
        date = parsedate(retry_after)
        return None if date is None else min(max(0.0, timegm(date) - wall_clock()), LONGEST_WAIT)
    return None


class Store(ABC):
    """One vendor's store, reached with one set of connection options.

    Any number of threads may use one. It starts no thread and opens nothing before :meth:`connect`. Sockets, locks and
    logins belong to the client, and a forked child makes a new one.

    :param options: the options that identify the client, coerced, each with its default if it was not given.
    """

    distribution: ClassVar[str] = "airflow-providers-secrets"
    """The name of the store's package for pip, for the message that an SDK is not installed."""
    sdk: ClassVar[Mapping[str, str]]
    """The modules to import before connecting, each with the extra of :attr:`distribution` that installs it."""
    late_imports: Sequence[str] = ()
    """Modules that the SDK itself imports at a first call. They are imported with the SDK, in the caller's thread, so
    that no fork happens during an import; one that this version of the SDK lacks is not needed."""
    forks_wait: bool = False
    """Whether a fork by another thread waits for a call in progress, because a library of the SDK would be damaged by
    it. The fork waits for a second at most (``lookup.forks.LONGEST_WAIT``)."""
    outcomes: ClassVar[Mapping[str, Outcome]]
    """What the SDK's codes mean. A code that no table knows is UNAVAILABLE."""
    advice: ClassVar[Mapping[str | Outcome, str]] = {}
    """The one thing to do about a code or an outcome, if store-specific advice helps more than the general one. That of
    a code has to fit reading, listing, writing and deleting; that of :attr:`.Outcome.DENIED` is for reading alone."""
    on_the_way: frozenset[str] = ON_THE_WAY
    """The codes of failures before the store: those of the process or host, or of whatever answers in its place."""
    expired_login: frozenset[str] = frozenset()
    """The codes after which a new client is made and asked, once per attempt."""
    env_prefixes: Sequence[str] = ()
    """Prefixes of the environment variables that determine, with these options, where the store is or who asks it."""
    muted_loggers: Sequence[str] = ()
    """The SDK's loggers. They and their children log nothing during our calls, since they quote requests and answers.

    A child logger that the SDK creates after its import, with a client or at a first call, is listed as well. Code
    without a logger of its own uses ``root``."""
    largest_value: int | None = None
    """The maximum number of bytes of a value, as UTF-8, if the vendor states one: ``airflow-secrets copy`` then finds
    what is too large before it writes anything. Otherwise only the write fails."""
    writes_per_second: float | None = None
    """How many secrets the vendor's quota lets a client write in a second, if there is one: ``airflow-secrets copy``
    stays below it. A new secret may take several requests. Without it, throttling sets the pace."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options

    def imports(self) -> Mapping[str, str]:
        """Return the modules that *these* options need, each with its extra; by default, :attr:`sdk`."""
        return self.sdk

    def preload(self) -> None:  # noqa: B027  # most stores have nothing to read
        """Read the SDK's files that :meth:`connect` would read, once per process.

        Runs after the modules of :meth:`imports` were imported, possibly just before a fork: no socket, no thread, no
        network, no lock held, no credential of the environment. Every child inherits the result.
        """

    def prepare_for_children(self) -> None:  # noqa: B027  # most stores have a client that is made quickly
        """Prepare what each child would otherwise make before its first call; only :meth:`connect` in a child uses it.

        Runs just before a fork, in the forking thread: no socket, no thread, no login, no network, no lock held. Not
        called if the fork is for one task alone, which may look nothing up.
        A child that uses the result first compares the environment and files that it was made from: they may have
        changed.
        """

    def asker(self) -> bytes:
        """Return a digest of who asks, as far as the files that a login reads tell; empty if it reads none.

        Entries that outlive the process are filed under the digest, and this runs around each call. So it must be
        cheap, and the digest must stay the same when a file is merely renewed for the same identity. Once it changes, a
        new client is made.
        """
        return b""

    @abstractmethod
    def connect(self) -> Any:
        """Return a new client. It may log in here or at its first call.

        Called for the first call of a process, again in a forked child, once :attr:`expired_login` says so, and once
        :meth:`asker` returns something else; by one thread at a time, unless an earlier call hangs beyond its deadline.
        A client that is no longer used is dropped, not closed: other threads may still use it.
        """

    def address(self, client: Any) -> str | None:  # noqa: ARG002
        """Return the URL of the server that *client* asks, for messages; ``None`` if it is not known."""
        return None

    @abstractmethod
    def fetch(self, client: Any, name: str) -> Answer:
        """Read one name, by one request once logged in.

        Any number of threads call this with one client. It has to end, at the latest, when :func:`seconds_left` is 0.

        :raises Exception: one whose code means NOT_FOUND (:data:`ABSENT`, if the SDK has none), if the store proves
            that there is no such name; and one with another code for everything else. See :meth:`codes`.
        """

    def codes(self, error: Exception) -> Iterator[str]:
        """Yield the codes of *error* to look up in :attr:`outcomes`, the most specific first.

        These are the codes of a :class:`StoreError`, or OpenSSL's reason, what happened to the connection, and the
        class names of an SDK's error.
        """
        if isinstance(error, StoreError):
            yield from error.codes
            return
        names = [kind.__name__ for kind in type(error).__mro__]
        says_little = self.outcomes.keys().isdisjoint(names)  # a class with a meaning says more than what it wraps
        if says_little:
            yield from codes_of_certificate(error)
        yield from re.findall(r"\[SSL: ([A-Z0-9_]{1,60})\]", str(error))
        if says_little:
            yield from codes_of_network(error)
        yield from names

    def retry_after(self, error: Exception) -> float | None:
        """Return the seconds that the store asked to wait, or ``None``."""
        return error.retry_after if isinstance(error, StoreError) else None

    def largest_value_with(self, settings: Mapping[str, str]) -> int | None:  # noqa: ARG002
        """Return the maximum for a value that is written with *settings*; by default, :attr:`largest_value`.

        :param settings: some of :attr:`.Writes.write_settings`.
        """
        return self.largest_value

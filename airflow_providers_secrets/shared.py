"""A cache that processes share: encrypted entries, told apart by keyed hashes, in a directory or in Redis.

What it protects, and what not, is in the documentation ("The shared cache"). Nothing in here fails a lookup:
an entry that cannot be read is as good as none, and trouble is warned about once a minute. What the user must
mend (a directory that others can write to, an unusable key) is a :class:`ConfigurationError`.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import stat
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from airflow_providers_secrets.bounded import Bounded
from airflow_providers_secrets.errors import ConfigurationError, MissingDependencyError
from airflow_providers_secrets.notices import warn
from airflow_providers_secrets.options import fernet_keys

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

wall_clock = time.time
"""Seconds that all processes and hosts count alike."""

FORMAT: Final = b"airflow-providers-secrets 1"
"""Takes part in every entry's name, so that another format's entries are never found."""

SKEW: Final = 2.0
"""Seconds by which another host's clock may be ahead; what is from further in the future is not believed."""

LOCKS: Final = 256
"""Over how many locks the names of a directory are spread."""

MAX_FILES: Final = 20_000
"""How many entries a directory holds before the oldest go."""

SWEEP_INTERVAL: Final = 60.0
REDIS_TIMEOUT: Final = 0.3
"""Seconds that one exchange with Redis may take, name resolution and connecting included."""
REDIS_PAUSE: Final = 15.0
"""Seconds for which Redis is left alone after it failed."""


class Said(NamedTuple):
    """What one process wrote for all: an answer of the store, or its failure.

    :param text: the text; ``None`` for a proven absence, or with a failure.
    :param at: when the store said so, by :data:`wall_clock`.
    :param failure: the class and code of a failure that stands for any lookup meanwhile.
    """

    text: str | None
    at: float
    failure: tuple[str, str] | None = None

    @property
    def age(self) -> float:
        """Seconds since the store said so."""
        return max(0.0, wall_clock() - self.at)

    def __repr__(self) -> str:
        return f"Said(at={self.at}, failure={self.failure})"


def airflows_keys() -> tuple[str, ...] | None:
    """Give Airflow's own Fernet keys; ``None`` while its configuration is not loaded yet.

    :raises ConfigurationError: where it has none that can be used.
    """
    conf = getattr(sys.modules.get("airflow.configuration"), "conf", None)
    if conf is None:
        return None
    try:
        return fernet_keys(conf.get("core", "fernet_key", fallback="") or "")
    except ValueError:
        raise ConfigurationError(
            "Option 'shared_cache' needs a key: [core] fernet_key holds no Fernet key. Set it, or set "
            "'shared_cache_key' to one that every process has."
        ) from None


def opened(where: str, ring: Sequence[str], identity: bytes, lifetime: float) -> SharedCache:
    """Open the cache at *where*.

    :param ring: Fernet keys. The first encrypts; all decrypt.
    :param identity: what the entries belong to: store, options, and who asks.
    :param lifetime: seconds after which an entry is of no use to anyone.
    :raises ConfigurationError: for a directory that cannot be used.
    :raises MissingDependencyError: where Redis's client is not installed.
    """
    if where.startswith("redis"):
        return RedisCache(where, ring, identity, lifetime)
    directory = urlsplit(where).path if where != "file" else default_directory()
    return FileCache(directory, ring, identity, lifetime)


def default_directory() -> str:
    """Give the user's own directory in memory, or a temporary one where the host has none."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isdir(runtime):  # noqa: PTH112
        return f"{runtime}/airflow-secrets"
    base = "/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir()  # noqa: PTH112, S108
    return f"{base}/airflow-secrets-{os.geteuid()}"


class _Seal:
    """One key: what entries are called under it, and how they are closed and opened."""

    def __init__(self, key: str, identity: bytes) -> None:
        from cryptography.fernet import Fernet

        self._fernet: Fernet = Fernet(key)
        self._names = hmac.new(base64.urlsafe_b64decode(key), FORMAT + b"\0" + identity + b"\0", hashlib.sha256)

    def token(self, name: str) -> str:
        names = self._names.copy()
        names.update(name.encode())
        return names.hexdigest()

    def close(self, token: str, said: Said) -> bytes:
        return self._fernet.encrypt(json.dumps([token, *said]).encode())

    def open(self, token: str, raw: bytes) -> Said | None:
        """Give what *raw* holds if it was closed by this key, for this name, and not in the future."""
        from cryptography.fernet import InvalidToken

        try:
            name, text, at, failure = json.loads(self._fernet.decrypt(raw))
        except (InvalidToken, ValueError, TypeError):
            return None
        if name != token or at > wall_clock() + SKEW:
            return None
        return Said(text, at, failure and (failure[0], failure[1]))


class SharedCache(ABC):
    """Entries that any process with the same key and identity reads. Any number of threads may use it.

    Does not outlive a fork: its owner opens a new one in the child.
    """

    def __init__(self, ring: Sequence[str], identity: bytes, lifetime: float) -> None:
        self._seals = [_Seal(key, identity) for key in ring]
        self._lifetime = lifetime

    def get(self, name: str) -> Said | None:
        """Give what was last written of *name*, however old; ``None`` where nothing usable is."""
        for seal in self._seals:
            token = seal.token(name)
            raw = self._read(token)
            if raw is not None and (said := seal.open(token, raw)) is not None:
                return said
        return None

    def put(self, name: str, text: str | None, failure: tuple[str, str] | None = None) -> None:
        """Write what the store has just said of *name*, in place of anything before."""
        seal = self._seals[0]
        token = seal.token(name)
        self._write(token, seal.close(token, Said(text, wall_clock(), failure)))

    def flight(self, name: str, seconds: float) -> AbstractContextManager[None]:
        """Keep other processes from asking for *name* meanwhile; go on after *seconds* in any case."""
        return self._locked(self._seals[0].token(name), seconds)

    @abstractmethod
    def _read(self, token: str) -> bytes | None: ...

    @abstractmethod
    def _write(self, token: str, raw: bytes) -> None: ...

    @abstractmethod
    def _locked(self, token: str, seconds: float) -> AbstractContextManager[None]: ...


class FileCache(SharedCache):
    """One file for each entry, in a directory that is the user's alone.

    :raises ConfigurationError: where the directory cannot be made, or is open to others.
    """

    def __init__(self, directory: str, ring: Sequence[str], identity: bytes, lifetime: float) -> None:
        super().__init__(ring, identity, lifetime)
        self._directory = _own_directory(directory)

    def _read(self, token: str) -> bytes | None:
        try:
            entry = os.open(f"{self._directory}/{token}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._trouble(error)
            return None
        try:
            return os.read(entry, os.fstat(entry).st_size)
        except OSError as error:
            self._trouble(error)
            return None
        finally:
            os.close(entry)

    def _write(self, token: str, raw: bytes) -> None:
        try:
            # A reader sees the old entry or the new one, never a part: rename(2) replaces in one step.
            written, path = tempfile.mkstemp(dir=self._directory, prefix="new-")
            try:
                with open(written, "wb") as file:  # noqa: PTH123
                    file.write(raw)
                os.replace(path, f"{self._directory}/{token}")  # noqa: PTH105
            except BaseException:
                os.unlink(path)  # noqa: PTH108
                raise
            self._sweep()
        except OSError as error:
            self._trouble(error)

    @contextlib.contextmanager
    def _locked(self, token: str, seconds: float) -> Iterator[None]:
        try:
            lock = os.open(
                f"{self._directory}/lock-{int(token[:8], 16) % LOCKS:02x}",
                os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW,
                0o600,
            )
        except OSError as error:
            self._trouble(error)
            yield
            return
        try:
            # flock(2) has no time-out of its own.
            for pause in _pauses(seconds):
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(pause)
            yield
        finally:
            # Closing alone would leave it locked for a child that was forked meanwhile.
            fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)

    def _sweep(self) -> None:
        """Remove what is of no use any more, once a minute in all processes together."""
        now = wall_clock()
        marker = f"{self._directory}/swept"
        try:
            if 0 <= now - os.stat(marker).st_mtime < SWEEP_INTERVAL:  # noqa: PTH116
                return
        except FileNotFoundError:
            pass
        os.close(os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        os.utime(marker)
        found = []
        with os.scandir(self._directory) as entries:
            for entry in entries:
                if not entry.name.startswith(("lock-", "swept")):
                    with contextlib.suppress(FileNotFoundError):
                        found.append((entry.stat(follow_symlinks=False).st_mtime, entry.path))
        found.sort(reverse=True)
        for number, (written, path) in enumerate(found):
            if now - written > self._lifetime or number >= MAX_FILES:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)  # noqa: PTH108

    def _trouble(self, error: OSError) -> None:
        warn(("shared cache", self._directory), "The shared cache in %s: %s", self._directory, error.strerror)


def _own_directory(directory: str) -> str:
    """Make *directory* if need be, and see that nobody else can read or write in it."""
    cure = "Name a directory of the Airflow user's own: shared_cache = 'file:///directory'."
    try:
        with contextlib.suppress(FileExistsError):
            os.makedirs(os.path.dirname(directory), exist_ok=True)  # noqa: PTH103, PTH120
            os.mkdir(directory, 0o700)  # noqa: PTH102
        found = os.lstat(directory)
    except OSError as error:
        raise ConfigurationError(
            f"Option 'shared_cache': {directory} cannot be used: {error.strerror}. {cure}"
        ) from None
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigurationError(f"Option 'shared_cache': {directory} is no directory. {cure}")
    if found.st_uid != os.geteuid():
        raise ConfigurationError(f"Option 'shared_cache': {directory} belongs to another user. {cure}")
    if found.st_mode & 0o077:
        raise ConfigurationError(
            f"Option 'shared_cache': {directory} is open to other users. Take their rights away: chmod 700."
        )
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ConfigurationError(f"Option 'shared_cache': {directory} cannot be written to. {cure}")
    return directory


def _pauses(seconds: float) -> Iterator[float]:
    """Give pauses that grow from 2 to 50 ms until *seconds* have passed."""
    deadline = time.monotonic() + seconds
    pause = 0.002
    while time.monotonic() < deadline:
        yield pause
        pause = min(pause * 1.5, 0.05)


class RedisCache(SharedCache):
    """One key for each entry, which Redis drops by itself when it is of no use any more.

    :raises MissingDependencyError: where the client is not installed.
    """

    def __init__(self, url: str, ring: Sequence[str], identity: bytes, lifetime: float) -> None:
        super().__init__(ring, identity, lifetime)
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError:
            raise MissingDependencyError(
                "redis is not installed. Install it with: pip install 'airflow-providers-secrets[redis]'"
            ) from None
        self._client = redis.Redis.from_url(
            url,
            socket_timeout=REDIS_TIMEOUT,
            socket_connect_timeout=REDIS_TIMEOUT,
            retry=Retry(NoBackoff(), 0),
        )
        self._left_alone_until = 0.0

    def _read(self, token: str) -> bytes | None:
        return self._in_time(lambda: self._client.get(f"airflow-secrets:{token}"))  # type: ignore[no-any-return]

    def _write(self, token: str, raw: bytes) -> None:
        self._in_time(lambda: self._client.set(f"airflow-secrets:{token}", raw, px=int(self._lifetime * 1000)))

    @contextlib.contextmanager
    def _locked(self, token: str, seconds: float) -> Iterator[None]:
        lock = self._client.lock(f"airflow-secrets:{token}:flight", timeout=seconds, thread_local=False)
        locked: bool | None = False
        for pause in _pauses(seconds):
            locked = self._in_time(lambda: lock.acquire(blocking=False))
            if locked is not False:
                break
            time.sleep(pause)
        try:
            yield
        finally:
            if locked:
                self._in_time(lambda: _released(lock))

    def _in_time(self, exchange: Callable[[], Any]) -> Any:
        """Give the result of *exchange*, or ``None`` where Redis fails or takes too long."""
        from redis import RedisError

        if time.monotonic() < self._left_alone_until:
            return None
        call = Bounded(lambda _: exchange())
        if call.finished_within(2 * REDIS_TIMEOUT) and call.error is None:
            return call.result
        if call.error is not None and not isinstance(call.error, RedisError | OSError):
            raise call.error
        self._left_alone_until = time.monotonic() + REDIS_PAUSE
        reason = type(call.error).__name__ if call.error else "no answer in time"
        warn(("shared cache", "redis"), "The shared cache in Redis is left out for %g s: %s", REDIS_PAUSE, reason)
        return None


def _released(lock: Any) -> None:
    from redis.exceptions import LockError

    with contextlib.suppress(LockError):  # it ended by itself, or another process has it by now
        lock.release()

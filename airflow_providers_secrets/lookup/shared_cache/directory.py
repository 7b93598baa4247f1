"""The shared cache of one host: a directory that only the user can access."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from io import FileIO
from typing import Final
from weakref import ref

from airflow_providers_secrets.errors import ConfigurationError, SecretsError
from airflow_providers_secrets.lookup.forks import in_child, no_fork
from airflow_providers_secrets.lookup.notices import warn
from airflow_providers_secrets.lookup.shared_cache import entries
from airflow_providers_secrets.lookup.shared_cache.entries import (
    MAX_ENTRY_BYTES,
    SKEW,
    CachePlace,
    StoredEntry,
    pauses,
)
from airflow_providers_secrets.options import BLOCK

SUBDIRECTORY: Final = "entries-1"
"""The subdirectory of the configured directory that holds everything: nothing beside it is ever touched."""

LOCKS: Final = 256
"""The number of locks over which the names of a directory are spread."""

MAX_FILES: Final = 20_000
"""The number of entries that a directory holds before the oldest are removed."""

SWEEP_INTERVAL: Final = 60.0
"""Seconds between two sweeps, counted over all processes."""

ROOM_LEFT: Final = 0.05
"""The fraction of the file system that is left to others: an entry that would take a part of it is not written."""

_ENTRY = re.compile(r"[0-9a-f]{64}")
_OURS = re.compile(rf"{_ENTRY.pattern}|new-[A-Za-z0-9_]+")

OPENED: Final = os.O_NOFOLLOW | os.O_NONBLOCK
"""How files are opened: without waiting, even if somebody has put a named pipe in the place of one."""

_lock_files: set[ref[FileIO]] = set()
"""This process's locks. Not a weak set: it runs Python code when a lock goes, and would lose a signal's exception."""


class DirectoryCache(CachePlace):
    """One file for each entry.

    Its modification time is the moment when it becomes useless: stores with other lifetimes sweep here too, and cannot
    read it. Its change time is the moment when it was written.

    :param directory: where; created if need be, for its owner only.
    :param max_bytes: the most bytes that the entries take together; the oldest are removed first.
    :raises ConfigurationError: if the directory cannot be created, or is open to others.
    """

    def __init__(self, directory: str, keys: Sequence[str], identity: bytes, lifetime: float, max_bytes: int) -> None:
        super().__init__(keys, identity, lifetime)
        self._directory = f"{directory}/{SUBDIRECTORY}"
        self.where = self._directory
        self._max_bytes = max_bytes
        self._make()

    def _make(self) -> None:
        _own_directory(os.path.dirname(self._directory))  # noqa: PTH120
        _own_directory(self._directory)

    @property
    def place(self) -> object:
        """The directory, whatever path leads to it."""
        return os.path.realpath(self._directory)

    def is_there(self) -> bool:
        """Return whether the directory is still there, and still accessible only to the user."""
        return is_ours_alone(self._directory)

    def _files(self) -> Iterator[os.DirEntry[str]]:
        with os.scandir(self._directory) as files:
            yield from (file for file in files if _ENTRY.fullmatch(file.name))

    def entries(self) -> Iterator[StoredEntry]:
        """Yield the age and size of every file."""
        for file in self._files():
            with contextlib.suppress(FileNotFoundError):
                about = file.stat(follow_symlinks=False)
                yield StoredEntry(max(0.0, entries.wall_clock() - about.st_ctime), about.st_size)

    def clear(self) -> int:
        """Remove every file."""
        return sum([self._remove(file.name) for file in self._files()])

    def _remove(self, token: str) -> bool:
        try:
            os.unlink(f"{self._directory}/{token}")  # noqa: PTH108
        except FileNotFoundError:
            return False
        return True

    def _read(self, token: str) -> bytes | None:
        try:
            entry = os.open(f"{self._directory}/{token}", os.O_RDONLY | OPENED)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._trouble(error)
            return None
        try:
            size = os.fstat(entry).st_size
            return os.read(entry, size) if size <= MAX_ENTRY_BYTES else None
        except OSError as error:
            self._trouble(error)
            return None
        finally:
            os.close(entry)

    def _drop(self, token: str) -> None:
        try:
            self._remove(token)
        except OSError as error:
            self._trouble(error)

    def _write(self, token: str, raw: bytes) -> bool:
        taken = -(-len(raw) // BLOCK) * BLOCK
        if taken > self._max_bytes:
            return False
        try:
            self._check_room(taken)
            self._store(token, raw)
            self._account(taken)
        except OSError as error:
            self._trouble(error)
            return False
        return True

    def _store(self, token: str, raw: bytes) -> None:
        # A reader sees the old entry or the new one, never a part: rename(2) replaces in one step.
        written, path = tempfile.mkstemp(dir=self._directory, prefix="new-")
        try:
            with open(written, "wb") as file:  # noqa: PTH123
                file.write(raw)
                file.flush()  # a later flush would reset the time
                now = entries.wall_clock()
                os.utime(written, (now, now + self.lifetime))
            os.replace(path, f"{self._directory}/{token}")  # noqa: PTH105
        except BaseException:
            with contextlib.suppress(FileNotFoundError):  # a signal handler may raise after the rename
                os.unlink(path)  # noqa: PTH108
            raise

    def probe(self) -> None:
        """Write and remove one file.

        :raises SecretsError: saying why lookups cannot store anything.
        """
        token = os.urandom(32).hex()
        fault: str | None = None
        try:
            self._check_room(BLOCK)
            self._store(token, bytes(BLOCK))
            self._remove(token)
        except OSError as error:
            fault = error.strerror
        if fault:
            raise SecretsError(
                f"The shared cache in {self.where} cannot be used: {fault}. "
                "Make room there, or name another directory: shared_cache = 'file:///directory'."
            )

    @contextlib.contextmanager
    def _locked(self, token: str, seconds: float) -> Iterator[None]:
        try:
            with no_fork():  # or a child could unknowingly inherit the descriptor, and with it the lock
                # Wherever a signal handler raises, a file object is closed once its frame is gone.
                lock = FileIO(f"{self._directory}/lock-{int(token[:8], 16) % LOCKS:02x}", "r+", opener=_open_lock)
                listed = ref(lock)
                _lock_files.add(listed)
        except OSError as error:
            self._trouble(error)
            yield
            return
        try:
            self._lock_within(lock, seconds)
            yield
        finally:
            # Closing alone would leave it locked if a child was forked meanwhile. In that child, it is closed already.
            with contextlib.suppress(OSError, ValueError):
                fcntl.flock(lock, fcntl.LOCK_UN)
            lock.close()
            _lock_files.discard(listed)

    def _lock_within(self, lock: FileIO, seconds: float) -> None:
        # flock(2) has no time-out of its own.
        for pause in pauses(seconds):
            if lock.closed:  # in a child that a signal handler has forked
                return
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                time.sleep(pause)
            except OSError as error:  # a file system without locks: each process asks for itself
                self._trouble(error)
                return

    # Room.

    def _check_room(self, size: int) -> None:
        """Check that *size* more bytes leave others their part of the file system.

        :raises OSError: if they do not.
        """
        found = os.statvfs(self._directory)
        if not found.f_blocks:  # a file system without a limit of its own, such as ramfs
            return
        if found.f_bavail * found.f_frsize - size < found.f_blocks * found.f_frsize * ROOM_LEFT:
            raise OSError(errno.ENOSPC, "its file system is full")

    def _account(self, size: int) -> None:
        """Record that *size* bytes were written; sweep if the total is too large, or once a minute.

        The length of one file is the number of pages that were there at the last sweep, or that any process has written
        since: appending one byte per page is an atomic addition.
        """
        written = os.open(f"{self._directory}/pages", os.O_WRONLY | os.O_APPEND | os.O_CREAT | OPENED, 0o600)
        try:
            os.write(written, b"." * (size // BLOCK))
            pages = os.fstat(written).st_size
        finally:
            os.close(written)
        since = entries.wall_clock() - self._swept_at()
        if pages * BLOCK > self._max_bytes or not 0 <= since < SWEEP_INTERVAL:
            self._sweep(clock_was_set_back=since < -SKEW)

    def _swept_at(self) -> float:
        try:
            return os.stat(f"{self._directory}/swept").st_mtime  # noqa: PTH116
        except FileNotFoundError:
            return 0.0

    def _sweep(self, *, clock_was_set_back: bool) -> None:
        """Remove what has expired, and, if there is too much, the oldest until a quarter of the room is free.

        :param clock_was_set_back: remove everything: entries from the future would be valid again when the clock gets
            there.
        """
        now = entries.wall_clock()
        marker = f"{self._directory}/swept"
        os.close(os.open(marker, os.O_WRONLY | os.O_CREAT | OPENED, 0o600))
        os.utime(marker, (now, now))
        found = []
        with os.scandir(self._directory) as files:
            for file in files:
                if _OURS.fullmatch(file.name):
                    with contextlib.suppress(FileNotFoundError):
                        about = file.stat(follow_symlinks=False)
                        # A file that is still being written has no expiry of its own yet.
                        is_entry = _ENTRY.fullmatch(file.name)
                        end = about.st_mtime if is_entry else about.st_ctime + SWEEP_INTERVAL
                        found.append((about.st_ctime, end, -(-about.st_size // BLOCK), file.path))
        found.sort(reverse=True)
        total = sum(pages for _, _, pages, _ in found)
        most = self._max_bytes // BLOCK if total * BLOCK <= self._max_bytes else self._max_bytes // BLOCK * 3 // 4
        kept = 0
        for number, (_, end, pages, path) in enumerate(found):
            if clock_was_set_back or now > end or number >= MAX_FILES or kept + pages > most:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)  # noqa: PTH108
            else:
                kept += pages
        with contextlib.suppress(FileNotFoundError):
            os.truncate(f"{self._directory}/pages", kept)

    def _trouble(self, error: OSError) -> None:
        if isinstance(error, FileNotFoundError):  # somebody removed the directory
            try:
                self._make()
            except ConfigurationError as fault:
                warn(("shared cache", self._directory), "Answers are not shared between processes: %s", fault)
                return
        warn(("shared cache", self._directory), "The shared cache in %s: %s", self._directory, error.strerror)


def is_ours_alone(directory: str) -> bool:
    """Return whether *directory* is a directory, belongs to this process's user, and is closed to all others."""
    try:
        found = os.lstat(directory)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def _own_directory(directory: str) -> None:
    """Create *directory* if need be, and check that nobody else can read or write in it."""
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
        raise ConfigurationError(f"Option 'shared_cache': {directory} is not a directory. {cure}")
    if found.st_uid != os.geteuid():
        raise ConfigurationError(f"Option 'shared_cache': {directory} belongs to another user. {cure}")
    if found.st_mode & 0o077:
        raise ConfigurationError(f"Option 'shared_cache': {directory} is open to other users. Restrict it: chmod 700.")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ConfigurationError(f"Option 'shared_cache': {directory} cannot be written to. {cure}")


def _open_lock(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | OPENED, 0o600)


def _after_in_child() -> None:
    """Close the parent's locks: a child that outlives the parent would otherwise hold them for its whole life."""
    for listed in _lock_files:
        lock = listed()
        if lock is not None:
            with contextlib.suppress(OSError):
                lock.close()
    _lock_files.clear()


in_child.append(_after_in_child)

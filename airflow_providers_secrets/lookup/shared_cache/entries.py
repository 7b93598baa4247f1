"""What a shared cache holds, and how it is sealed."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Final, NamedTuple

wall_clock = time.time
"""Seconds that all processes and hosts count alike."""

FORMAT: Final = b"airflow-providers-secrets 2"
"""Takes part in every entry's name, so that another format's entries are never found."""

SKEW: Final = 2.0
"""Seconds by which another host's clock may be ahead; what is from further in the future is not believed."""

MAX_ENTRY_BYTES: Final = 4 * 1024 * 1024
"""The largest entry, sealed; a larger answer is not shared, and a larger entry is not read."""

NONCE_BYTES: Final = 12
"""What an entry starts with."""

STEP: Final = 64
"""The bytes in whose multiples an entry's length is told: an absence and a short password look alike."""

_exchanges_until: ContextVar[float] = ContextVar("exchanges_until", default=float("inf"))


@contextlib.contextmanager
def exchanges_until(moment: float) -> Iterator[None]:
    """Have no exchange with a server last beyond *moment* (``time.monotonic``), in this thread and meanwhile.

    Each is short by itself; seven of them with a slow server are not.
    """
    before = _exchanges_until.set(moment)
    try:
        yield
    finally:
        _exchanges_until.reset(before)


def seconds_for_exchange() -> float:
    """Return how long an exchange may last, as :func:`exchanges_until` says; 0 or less for not at all."""
    return _exchanges_until.get() - time.monotonic()


class SharedEntry(NamedTuple):
    """What one process wrote for all: an answer of the store, or its failure.

    :param text: the text; ``None`` for a proven absence, or with a failure.
    :param at: when the store said so, by :data:`wall_clock`.
    :param failure: class, code and advice of a failure that stands for any lookup meanwhile.
    """

    text: str | None
    at: float
    failure: tuple[str, str, str] | None = None

    @property
    def age(self) -> float:
        """Seconds since the store said so."""
        return max(0.0, wall_clock() - self.at)

    def __repr__(self) -> str:
        return f"SharedEntry(at={self.at}, failure={self.failure})"


class StoredEntry(NamedTuple):
    """What can be told of an entry without its key.

    :param age: seconds since it was written.
    :param size: bytes, encrypted.
    """

    age: float
    size: int


class Found(NamedTuple):
    """An entry as it was found.

    :param token: what it is called.
    :param raw: encrypted.
    :param entry: what it holds.
    """

    token: str
    raw: bytes
    entry: SharedEntry

    def __repr__(self) -> str:
        return f"Found({self.entry})"


YoungEnough = Callable[[SharedEntry], bool]
"""Tells whether an entry is young enough to be an answer."""


def never(_: SharedEntry) -> bool:
    """Have no entry count: the newest of all is wanted."""
    return False


class Seal:
    """One Fernet key: what entries are called under it, and how they are encrypted and decrypted.

    Entries are no Fernet tokens: those are half as long again, and take ten times as long to open, in every lookup of
    every child. They are AES-256-GCM, with the entry's token as associated data. Its key is derived by HKDF, since the
    Fernet key may be Airflow's own, which encrypts the metastore as well.

    :param key: the Fernet key.
    :param identity: what the entries belong to: store, options, and who asks.
    """

    def __init__(self, key: str, identity: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        given = base64.urlsafe_b64decode(key)
        self._cipher = AESGCM(HKDF(SHA256(), length=32, salt=None, info=FORMAT).derive(given))
        self._names = hmac.new(given, FORMAT + b"\0" + identity + b"\0", hashlib.sha256)

    def token(self, name: str) -> str:
        """Return what the entry of *name* is called."""
        names = self._names.copy()
        names.update(name.encode())
        return names.hexdigest()

    def close(self, token: str, entry: SharedEntry) -> bytes:
        """Encrypt an entry, so that it opens under its own token alone."""
        # By random nonces one key may seal 2**32 entries (NIST SP 800-38D, 8.3): 136 a second for a year.
        nonce = os.urandom(NONCE_BYTES)
        body = json.dumps(entry).encode()
        padded = body.ljust(-(-len(body) // STEP) * STEP)  # JSON may end in spaces
        return nonce + self._cipher.encrypt(nonce, padded, token.encode())

    def open(self, token: str, raw: bytes) -> SharedEntry | None:
        """Return what *raw* holds if it was closed by this key, for this token, and not in the future."""
        from cryptography.exceptions import InvalidTag

        try:
            text, at, failure = json.loads(self._cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], token.encode()))
            if at > wall_clock() + SKEW or not (text is None or isinstance(text, str)):
                return None
            said = (str(failure[0]), str(failure[1]), str(failure[2])) if failure else None
            return SharedEntry(text, float(at), said)
        except (InvalidTag, ValueError, TypeError, LookupError, RecursionError):
            return None


class SharedCache(ABC):
    """Entries that any process with the same key and identity reads. Any number of threads may use it.

    One that has been used does not outlive a fork: its owner opens a new one in the child.
    """

    def __init__(self, keys: Sequence[str], identity: bytes, lifetime: float) -> None:
        self._seals = [Seal(key, identity) for key in keys]
        self._lifetime = lifetime

    where: str
    """The directory or server, without any credential."""

    @property
    def place(self) -> object:
        """What two caches have in common that are one and the same: each would wait for the other's flights."""
        return self.where

    @property
    def lifetime(self) -> float:
        """Seconds after which an entry is of no use to anyone."""
        return self._lifetime

    def is_there(self) -> bool:
        """Tell, without a connection, whether what was opened by a parent can be used still."""
        return True

    def get(self, name: str, counts: YoungEnough = never) -> SharedEntry | None:
        """Return what was last written of *name*, however old; ``None`` where nothing usable is.

        :param counts: where there are several caches or keys, the farther and older ones are not looked under once an
            entry counts.
        """
        found = self.find(name, counts)
        return found.entry if found else None

    def find(self, name: str, counts: YoungEnough = never) -> Found | None:
        """Return what :meth:`get` does, with its token and as it is written."""
        newest: Found | None = None
        for seal in self._seals:
            token = seal.token(name)
            raw = self._read(token)
            entry = None if raw is None else seal.open(token, raw)
            # A process that has an older key alone may have been told of a change since.
            if raw and entry and (newest is None or entry.at > newest.entry.at):
                newest = Found(token, raw, entry)
            if newest and counts(newest.entry):
                break
        return newest

    def put(
        self, name: str, text: str | None, failure: tuple[str, str, str] | None = None, *, age: float = 0.0
    ) -> None:
        """Write what the store has just said of *name*, in place of anything before.

        :param age: seconds since it was asked.
        """
        seal = self._seals[0]
        token = seal.token(name)
        self._replace(name, token, seal.close(token, SharedEntry(text, wall_clock() - age, failure)))

    def _replace(self, name: str, token: str, raw: bytes) -> None:
        """Write the newest entry of *name*. Where that cannot be done, nothing older may stand in for it."""
        if len(raw) > MAX_ENTRY_BYTES or not self._write(token, raw):
            self.drop(name)

    def drop(self, name: str) -> None:
        """Remove what is cached of *name*, under every key. A failure is warned about and fails nothing."""
        for seal in self._seals:
            self._drop(seal.token(name))

    def flight(
        self,
        name: str,
        seconds: float,
        counts: YoungEnough = never,  # noqa: ARG002  # for who has several
    ) -> AbstractContextManager[None]:
        """Keep other processes from asking for *name* meanwhile; go on after *seconds* in any case.

        :param counts: where there are several caches, the farther ones' processes are not kept from it where a nearer
            one holds an entry that counts by now.
        """
        return self._locked(self._seals[0].token(name), seconds)

    # For operators.

    def probe(self) -> None:  # noqa: B027  # a directory was tried when it was opened
        """Read and write once, as no lookup tells.

        :raises SecretsError: where the cache cannot be read or written.
        """

    @abstractmethod
    def entries(self) -> Iterator[StoredEntry]:
        """Yield the age and size of every entry, of whichever store and key."""

    @abstractmethod
    def clear(self) -> int:
        """Remove every entry, of whichever store and key, and return their number."""

    def remove(self, name: str) -> bool:
        """Remove what is cached of *name*, and tell whether anything was."""
        removed = [self._remove(seal.token(name)) for seal in self._seals]  # under each key, whatever the first one had
        return any(removed)

    @abstractmethod
    def _remove(self, token: str) -> bool: ...

    @abstractmethod
    def _read(self, token: str) -> bytes | None: ...

    @abstractmethod
    def _write(self, token: str, raw: bytes) -> bool:
        """Tell whether it was written."""

    @abstractmethod
    def _drop(self, token: str) -> None:
        """Remove an entry in a lookup or after a write, which go on where that fails."""

    @abstractmethod
    def _locked(self, token: str, seconds: float) -> AbstractContextManager[None]: ...


def pauses(seconds: float) -> Iterator[float]:
    """Yield pauses that grow from 2 to 50 ms until *seconds* have passed."""
    deadline = time.monotonic() + seconds
    pause = 0.002
    while time.monotonic() < deadline:
        yield pause
        pause = min(pause * 1.5, 0.05)

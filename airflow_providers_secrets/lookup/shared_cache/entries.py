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
"""Seconds of a clock that all processes and hosts have in common."""

FORMAT: Final = b"airflow-providers-secrets 2"
"""Part of the input of every entry's token, so that entries of another format are never found."""

SKEW: Final = 2.0
"""Seconds by which another host's clock may be ahead; entries from further in the future are ignored."""

MAX_ENTRY_BYTES: Final = 4 * 1024 * 1024
"""The largest entry, sealed; a larger answer is not shared, and a larger entry is not read."""

NONCE_BYTES: Final = 12
"""The length of the nonce that an entry starts with."""

STEP: Final = 64
"""Entries are padded to multiples of so many bytes: an absence and a short password have the same length."""

_exchanges_until: ContextVar[float] = ContextVar("exchanges_until", default=float("inf"))


@contextlib.contextmanager
def exchanges_until(moment: float) -> Iterator[None]:
    """Let no exchange with a server last beyond *moment* (``time.monotonic``), in this thread and within the block.

    Each exchange is short; seven of them with a slow server are not.
    """
    before = _exchanges_until.set(moment)
    try:
        yield
    finally:
        _exchanges_until.reset(before)


def seconds_for_exchange() -> float:
    """Return how long an exchange may last, as :func:`exchanges_until` says; 0 or less if there is no time for one."""
    return _exchanges_until.get() - time.monotonic()


class SharedEntry(NamedTuple):
    """What one process wrote for all: an answer of the store, or its failure.

    :param text: the text; ``None`` for a proven absence, or with a failure.
    :param at: when the store said so, by :data:`wall_clock`.
    :param failure: class, code and advice of a failure, which every lookup gets meanwhile.
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
    """What is known of an entry without its key.

    :param age: seconds since it was written.
    :param size: bytes, encrypted.
    """

    age: float
    size: int


class Found(NamedTuple):
    """An entry as it was found.

    :param token: its token, the name that it is stored under.
    :param raw: the encrypted entry.
    :param entry: what it holds.
    """

    token: str
    raw: bytes
    entry: SharedEntry

    def __repr__(self) -> str:
        return f"Found({self.entry})"


YoungEnough = Callable[[SharedEntry], bool]
"""Returns whether an entry is young enough to be an answer."""


def never(_: SharedEntry) -> bool:
    """Accept no entry as young enough, so that all are compared and the newest is returned."""
    return False


class Seal:
    """One Fernet key: it names entries by tokens, and encrypts and decrypts them.

    Entries are not Fernet tokens, which are half as long again and take ten times as long to open, in every lookup of
    every child. They are AES-256-GCM, with the entry's token as associated data. The AES key is derived by HKDF, since
    the Fernet key may be Airflow's own, which encrypts the metastore as well.

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
        """Return the token of the entry of *name*."""
        names = self._names.copy()
        names.update(name.encode())
        return names.hexdigest()

    def close(self, token: str, entry: SharedEntry) -> bytes:
        """Encrypt an entry so that it can be opened only under its own token."""
        # With random nonces, one key may seal 2**32 entries (NIST SP 800-38D, 8.3): 136 a second for a year.
        nonce = os.urandom(NONCE_BYTES)
        body = json.dumps(entry).encode()
        padded = body.ljust(-(-len(body) // STEP) * STEP)  # JSON may end in spaces
        return nonce + self._cipher.encrypt(nonce, padded, token.encode())

    def open(self, token: str, raw: bytes) -> SharedEntry | None:
        """Return what *raw* holds if it was closed with this key, for this token, and not in the future."""
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

    A cache that has been used does not outlive a fork: its owner opens a new one in the child.
    """

    def __init__(self, keys: Sequence[str], identity: bytes, lifetime: float) -> None:
        self._seals = [Seal(key, identity) for key in keys]
        self.lifetime = lifetime
        """Seconds after which an entry is of no use to anyone."""

    where: str
    """The directory or server, without any credential."""

    @abstractmethod
    def is_there(self) -> bool:
        """Return, without a connection, whether what a parent opened can still be used."""

    def get(self, name: str, young_enough: YoungEnough = never) -> SharedEntry | None:
        """Return what was last written about *name*, however old; ``None`` if there is nothing usable.

        :param young_enough: if there are several caches or keys, the farther and older ones are not tried once this
            accepts an entry.
        """
        found = self.find(name, young_enough)
        return found.entry if found else None

    @abstractmethod
    def find(self, name: str, young_enough: YoungEnough = never) -> Found | None:
        """Return what :meth:`get` does, together with its token and its encrypted form."""

    def put(
        self, name: str, text: str | None, failure: tuple[str, str, str] | None = None, *, age: float = 0.0
    ) -> None:
        """Write what the store has just said about *name*, in place of anything before.

        :param age: seconds since the store was asked.
        """
        seal = self._seals[0]
        token = seal.token(name)
        self.replace(name, token, seal.close(token, SharedEntry(text, wall_clock() - age, failure)))

    @abstractmethod
    def replace(self, name: str, token: str, raw: bytes) -> None:
        """Write the newest entry of *name*, in its encrypted form; :meth:`put` does for what the store has said."""

    @abstractmethod
    def drop(self, name: str) -> None:
        """Remove what is cached of *name*, under every key. A failure is warned about and fails nothing."""

    @abstractmethod
    def flight(self, name: str, seconds: float, young_enough: YoungEnough = never) -> AbstractContextManager[None]:
        """Keep other processes from asking for *name* meanwhile; continue after *seconds* in any case.

        :param young_enough: if there are several caches, the farther ones' processes are not kept from asking if this
            accepts the entry that a nearer one holds by now.
        """

    # For operators.

    @abstractmethod
    def probe(self) -> None:
        """Read and write once, and report failures, which lookups hide.

        :raises SecretsError: if the cache cannot be read or written.
        """

    @abstractmethod
    def entries(self) -> Iterator[StoredEntry]:
        """Yield the age and size of every entry, whatever its store and key."""

    @abstractmethod
    def clear(self) -> int:
        """Remove every entry, whatever its store and key, and return their number."""

    @abstractmethod
    def remove(self, name: str) -> bool:
        """Remove what is cached of *name*, and return whether anything was."""


class CachePlace(SharedCache):
    """A cache in one place: a subclass reads, writes and locks one entry there by its token."""

    @property
    def place(self) -> object:
        """What identifies the place: two layers at one place would wait for each other's flights."""
        return self.where

    def is_there(self) -> bool:
        """Return, without a connection, whether what a parent opened can still be used."""
        return True

    def find(self, name: str, young_enough: YoungEnough = never) -> Found | None:
        """Return the newest entry under any key."""
        newest: Found | None = None
        for seal in self._seals:
            token = seal.token(name)
            raw = self._read(token)
            entry = None if raw is None else seal.open(token, raw)
            # A process that has only an older key may have learned of a change since.
            if raw and entry and (newest is None or entry.at > newest.entry.at):
                newest = Found(token, raw, entry)
            if newest and young_enough(newest.entry):
                break
        return newest

    def replace(self, name: str, token: str, raw: bytes) -> None:
        """Write the newest entry of *name*. If that fails, remove the older ones, which must not be served for it."""
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
        young_enough: YoungEnough = never,  # noqa: ARG002  # for several places
    ) -> AbstractContextManager[None]:
        """Keep other processes from asking for *name* meanwhile; continue after *seconds* in any case."""
        return self._locked(self._seals[0].token(name), seconds)

    def remove(self, name: str) -> bool:
        """Remove what is cached of *name*, and return whether anything was."""
        removed = [self._remove(seal.token(name)) for seal in self._seals]  # a list: under each key, even after a hit
        return any(removed)

    @abstractmethod
    def _remove(self, token: str) -> bool: ...

    @abstractmethod
    def _read(self, token: str) -> bytes | None: ...

    @abstractmethod
    def _write(self, token: str, raw: bytes) -> bool:
        """Write an entry, and return whether it was written."""

    @abstractmethod
    def _drop(self, token: str) -> None:
        """Remove an entry during a lookup or after a write, which continue if that fails."""

    @abstractmethod
    def _locked(self, token: str, seconds: float) -> AbstractContextManager[None]: ...


def pauses(seconds: float) -> Iterator[float]:
    """Yield pauses that grow from 2 to 50 ms until *seconds* have passed."""
    deadline = time.monotonic() + seconds
    pause = 0.002
    while time.monotonic() < deadline:
        yield pause
        pause = min(pause * 1.5, 0.05)

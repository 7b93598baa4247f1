"""What a backend says and does for the core to speak to its store. The core's side is in :mod:`.access`."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_providers_secrets.outcomes import Outcome

if TYPE_CHECKING:
    from airflow_providers_secrets.cache import Lifetimes


class Answer:
    """What a store gave for one name.

    :param text: the secret's text.
    :param name: the name that the store says it answered for, where it says so.
    """

    __slots__ = ("name", "text")

    def __init__(self, text: str, name: str | None = None) -> None:
        self.text = text
        self.name = name

    def __repr__(self) -> str:
        return f"Answer(name={self.name!r})"


class Listed:
    """What a store's listing says of one name.

    :param name: the name, spelled as lookups ask for it.
    :param text: the secret's text where the listing gave it; ``None`` where only a read of its own will.
    """

    __slots__ = ("name", "text")

    def __init__(self, name: str, text: str | None = None) -> None:
        self.name = name
        self.text = text

    def __repr__(self) -> str:
        return f"Listed(name={self.name!r})"


class StoreFault(Exception):
    """Why a store, or the way to it, gave no answer, where a client of this package's own says so.

    Holds nothing of any answer's text.

    :param codes: the most specific first; :attr:`Store.outcomes` knows at least one, unless it is UNAVAILABLE.
    :param retry_after: seconds that the server asked to wait.
    """

    def __init__(self, *codes: str, retry_after: float | None = None) -> None:
        super().__init__(", ".join(codes))
        self.codes = codes
        self.retry_after = retry_after


def seconds_to_wait(retry_after: str) -> float | None:
    """Read the header Retry-After (RFC 9110, section 10.2.3), where it is in seconds."""
    return float(retry_after) if retry_after.isascii() and retry_after.isdigit() else None


class Store(ABC):
    """What a backend says and does for the core to speak to its store.

    Its methods raise whatever the SDK raises: the core classifies it once, by :meth:`codes` and
    :attr:`outcomes`.
    """

    store: ClassVar[str]
    """The store in words, for messages."""
    sdk: ClassVar[Sequence[str]]
    """The modules to import before connecting."""
    late_imports: ClassVar[Sequence[str]] = ()
    """What the SDK imports by itself at a first call, and is imported before it, so that no fork falls into that; where
    a version of the SDK has no such module, none is needed."""
    extra: ClassVar[str]
    """The extra of this package that brings the SDK."""
    outcomes: ClassVar[Mapping[str, Outcome]]
    """What the SDK's codes mean. A code that no entry knows is UNAVAILABLE."""
    advice: ClassVar[Mapping[Outcome, str]] = {}
    """What to do about an outcome, where the store's own words help more than the general ones."""
    expired_login: ClassVar[frozenset[str]] = frozenset()
    """The codes after which one new client is made and asked, once per lookup."""
    ambient: ClassVar[Sequence[str]] = ()
    """How the environment variables begin by which the SDK finds the store or its credentials."""
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
        """How long what the store said counts."""

    @property
    @abstractmethod
    def shared_cache(self) -> str | None:
        """Where processes share what the store said, if they do."""

    @property
    @abstractmethod
    def shared_cache_key(self) -> Sequence[str] | None:
        """Its Fernet keys; ``None`` for Airflow's own."""

    @property
    @abstractmethod
    def identity(self) -> bytes:
        """What tells this store, and who asks it, from any other, as far as options do."""

    @abstractmethod
    def connect(self) -> Any:
        """Make the client."""

    @abstractmethod
    def fetch(self, client: Any, name: str) -> Answer:
        """Read one name: the only call to the store."""

    @abstractmethod
    def listing(self, client: Any, prefix: str) -> Iterator[Listed]:
        """Give everything whose name starts with *prefix*, page by page: nothing is left out once it ends."""

    def codes(self, error: Exception) -> Iterator[str]:
        """Give the codes of *error* by which :attr:`outcomes` may know it, the most specific first.

        These are a fault's own ones; or OpenSSL's reason and the class names of an SDK's or library's error.
        """
        if isinstance(error, StoreFault):
            yield from error.codes
            return
        yield from re.findall(r"\[SSL: ([A-Z0-9_]{1,60})\]", str(error))
        yield from (kind.__name__ for kind in type(error).__mro__)

    def retry_after(self, error: Exception) -> float | None:
        """Give the seconds that the store asked to wait, where it did."""
        return error.retry_after if isinstance(error, StoreFault) else None

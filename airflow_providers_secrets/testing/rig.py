"""What the contract suite needs of a store: a running server, a backend that speaks to it, and ways to break both."""

from __future__ import annotations

import contextlib
import functools
import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Final, TypeAlias

from airflow_providers_secrets.testing.proxy import Proxy, Reply, Request

Found: TypeAlias = Callable[..., Reply]
Answer: TypeAlias = Reply | Callable[[Request], "Reply | None"]

PAGE = "*"
"""What ``Rig.calls`` holds for one page of a listing."""

FROM_THE_STORE = "X-From-The-Store"
"""The header of an answer from a rig's own store, not from a check or an injected fault."""

FAULTS = (
    "denied",
    "throttled",
    "server-error",
    "proxy-404",
    "malformed",
    "truncated",
    "reset",
    "hang",
    "drip",
    "wrong-name",
)
"""The faults that every rig injects; see ``Rig.faults``."""

HOSTILE_FAULTS = ("redirect", "undecodable", "endless", "throttled-for-an-hour", "proxy-403")
"""More faults, as an attacker or a broken proxy would cause them; ``Rig.missing_faults`` lists those that a
protocol cannot have."""


PATIENT: Final = {"timeout": 60.0, "connect_timeout": 30.0, "read_timeout": 30.0}
"""The most time that a busy machine needs; no test waits for it unless something is wrong."""


def http_faults(
    *, denied: Answer, throttled: Answer, server_error: Answer, found: Found, wrong_name: Answer, content_type: str
) -> dict[str, Answer]:
    """Return the fault table of a store that speaks HTTP, made from the answers that are specific to its protocol.

    "redirect" and "throttled-for-an-hour" are left to the rig. So is "undecodable" if values are not in plain text.

    :param found: answers a read or a page, with ``S3cr3t`` in the value; its keyword arguments are those of
        :class:`.Reply`.
    :param wrong_name: an answer that is for another name.
    """
    return {
        "denied": denied,
        "throttled": throttled,
        "server-error": server_error,
        "proxy-404": Reply(404, b"<html>S3cr3t-page: not found</html>", {"Content-Type": "text/html"}),
        "proxy-403": Reply(403, b"<html>S3cr3t-page: forbidden</html>", {"Content-Type": "text/html"}),
        "malformed": Reply(200, b'{"S3cr3t": ', {"Content-Type": content_type}),
        "truncated": lambda request: found(request, truncate=True),
        "reset": Reply(reset=True),
        "hang": Reply(hang=True),
        "drip": lambda request: found(request, drip=0.1),
        "wrong-name": wrong_name,
        "undecodable": lambda request: _undecodable(found(request)),
        "endless": Reply(200, b" " * 65536, {"Content-Type": content_type}, endless=True),
    }


def _undecodable(reply: Reply) -> Reply:
    """Return the same answer with a byte in its value that is invalid in UTF-8."""
    return Reply(reply.status, reply.body.replace(b"S3cr3t", b"S3cr3t\xff"), reply.headers)


def answer_to(request: Request, answer: Answer) -> Reply | None:
    """Return the reply that one entry of :func:`http_faults` gives to *request*."""
    return answer if isinstance(answer, Reply) else answer(request)


class Rig(ABC):
    """A running server of one store, and a backend class that speaks to it.

    A rig lives for the whole session. Names are spelled here by the official rules, written independently of
    the code under test.
    """

    name: ClassVar[str]
    """The rig's name in the ids of tests."""
    backend_class: ClassVar[type]
    class_path: ClassVar[str]
    """The path of that class, as Airflow's configuration has it."""
    distribution: ClassVar[str] = "airflow-providers-secrets"
    """The package for pip that the backend is in."""
    extra: ClassVar[str]
    """The extra of the distribution that installs the SDK."""
    sdk: ClassVar[str]
    """The SDK's top-level module."""
    prefix_option: ClassVar[str] = "{kind}_prefix"
    """The name of the option that holds the prefix of a kind."""
    missing_faults: ClassVar[frozenset[str]] = frozenset()
    """Faults that the protocol cannot have: gRPC has no redirects."""
    ambient: ClassVar[tuple[str, ...]]
    """Environment variables that may identify who asks, and that these options do not need."""
    elsewhere: Proxy
    """Another host, to which the fault "redirect" sends requests; it answers every request."""

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """Return the options that make a backend use this server, as a JSON object."""

    def backend(self, **options: Any) -> Any:
        """Return a backend that asks the store at each lookup, unless *options* say otherwise."""
        return self.caching(**{"cache_ttl": 0, **options})

    def caching(self, **options: Any) -> Any:
        """Return a backend with the default caching options."""
        return self.backend_class(**{**self.options(), **PATIENT, **options})

    @abstractmethod
    def path(self, kind: str, secret_id: str, base: str | None = None, team: str | None = None) -> str:
        """Return the store's name of a secret; *base* replaces the default prefix."""

    @abstractmethod
    def put(self, path: str, text: str) -> None:
        """Write a secret such that *text* is the value of a variable, or the URI or JSON of a connection."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """Delete a secret for good."""

    @property
    @abstractmethod
    def calls(self) -> list[str]:
        """The names asked for so far, one for each request that reached the store's own port, logins left out.

        A page of a listing counts as :data:`.PAGE`.
        """

    @abstractmethod
    def faults(self) -> dict[str, Answer]:
        """Return what answers in place of the store, for each of :data:`.FAULTS` and :data:`.HOSTILE_FAULTS`."""

    def fault(self, fault: str, *, listings: bool = False) -> contextlib.AbstractContextManager[None]:
        """Replace every answer (with *listings*: every page of a listing) by one of :meth:`faults` meanwhile."""
        return self.answering(self.faults()[fault], listings=listings)

    @property
    @abstractmethod
    def requests(self) -> list[Request]:
        """Every request so far, including logins and the requests that they make."""

    def page(self, names: list[str], more: str | None) -> Reply:
        """Return a page of a listing that holds *names*, and says by *more* that there is another one.

        If a store has folders instead of pages, *more* is another folder. A store that cannot list needs no page.
        """
        raise NotImplementedError

    @abstractmethod
    def answering(self, answer: Answer, *, listings: bool = False) -> contextlib.AbstractContextManager[None]:
        """Replace every answer (with *listings*: every page of a listing) by *answer* meanwhile; logins still work."""

    @contextlib.contextmanager
    def counted(self) -> Iterator[list[str]]:
        """Yield a list that holds, after the block, the names asked for in it."""
        seen: list[str] = []
        before = len(self.calls)
        yield seen
        seen.extend(self.calls[before:])

    @abstractmethod
    def stop(self) -> None:
        """Stop the server."""


@functools.cache
def running(path: str) -> Any:
    """Return the session's only rig of a class, named as ``module:Class``; it starts when it is first asked for."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)()

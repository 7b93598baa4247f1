"""What botocore's transport leaves open: how much is read, for how long, and whether it was all of it."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import botocore.session
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.httpsession import create_urllib3_context, get_cert_path

from airflow_providers_secrets.errors import ConfigurationError
from airflow_providers_secrets.stores.base import CHUNK, MALFORMED, StoreError, seconds_left, whole_body
from airflow_providers_secrets.stores.certificates import context_of

MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024
"""The longest answer read, in bytes. The longest that AWS gives is a batch of 20 secrets of 64 kB each."""

MAX_METADATA_BYTES: Final = 64 * 1024
"""The longest answer read of a host's or container's own service, in bytes, which gives credentials alone.

It also bounds each of the two streams that a profile's ``credential_process`` prints to.
"""

_FIRST_ERROR: Final = 300


class BoundedSession(botocore.session.Session):  # type: ignore[misc]  # botocore is untyped
    """A botocore session all of whose clients, those that fetch credentials included, read bounded answers.

    What a profile's command prints is bounded as well, and nobody is asked to type a code.
    """

    def _create_credential_resolver(self) -> Any:
        resolver: Any = super()._create_credential_resolver()
        bound_metadata(resolver)
        bound_commands(resolver)
        for provider in resolver.providers:
            if hasattr(provider, "_prompter"):  # there is no public way to it
                provider._prompter = no_prompt("the profile's 'mfa_serial'")  # noqa: SLF001
        return resolver

    def create_client(self, *args: Any, **kwargs: Any) -> Any:
        """Make a client, as botocore does, that reads bounded answers."""
        client = super().create_client(*args, **kwargs)
        bound_answers(client)
        return client


def bounds(options: Mapping[str, Any]) -> Config:
    """Return how long one attempt takes at most, and that botocore makes no other: attempts are the lookup's."""
    return Config(
        connect_timeout=options["connect_timeout"],
        read_timeout=options["read_timeout"],
        retries={"mode": "standard", "total_max_attempts": 1},
    )


def no_prompt(setting: str) -> Callable[[str], str]:
    """Return what botocore asks for an MFA code by: it refuses, and says that *setting* is why it was asked."""

    def refuse(_: str) -> str:
        raise ConfigurationError(f"{setting} asks for an MFA code, which nobody can type here.")

    return refuse


def bound_answers(client: Any) -> None:
    """Let *client* read answers of :data:`MAX_ANSWER_BYTES` at most, until nobody waits any more, and whole ones alone.

    Its connections are verified by certificates that are read here, once in a process and its children.

    :raises ConfigurationError: where this botocore has no such transport.
    """
    endpoint: Any = getattr(client, "_endpoint", None)  # there is no public way to it
    if not hasattr(endpoint, "http_session"):
        raise ConfigurationError(
            f"botocore {botocore.__version__} has no 'http_session' to bound; install an older boto3, and report this."
        )
    trust_once(endpoint.http_session, str(getattr(endpoint, "host", "")))
    endpoint.http_session = _BoundedHttp(endpoint.http_session)


def trust_once(session: Any, url: str) -> None:
    """Have a botocore HTTP session read certificates once while they stay as they are, and not for each connection.

    Those of the client, and of a proxy that is asked over TLS, are left to botocore.

    :param url: where the session leads; what it is verified by is read at once.
    """
    set_up: Any = getattr(session, "_setup_ssl_cert", None)  # there is no public way to it
    if set_up is None:
        return

    def set_up_once(pool: Any, url: str, verify: bool | str) -> None:  # noqa: FBT001  # botocore's signature
        set_up(pool, url, verify)
        if pool.ca_certs and not pool.cert_file and getattr(pool.proxy, "scheme", None) != "https":
            with contextlib.suppress(OSError, ValueError):  # botocore says what is wrong with them
                pool.conn_kw["ssl_context"] = context_of(pool.ca_certs, create_urllib3_context)
                pool.ca_certs = None

    session._setup_ssl_cert = set_up_once  # noqa: SLF001
    verify: bool | str = getattr(session, "_verify", False)
    if verify and url.startswith("https:"):
        with contextlib.suppress(OSError, ValueError):
            context_of(get_cert_path(verify), create_urllib3_context)


def bound_metadata(resolver: Any) -> None:
    """Let the credential providers of *resolver* read short answers alone of a host's or container's own service."""
    for provider in resolver.providers:
        fetcher: Any = getattr(provider, "_role_fetcher", None) or getattr(provider, "_fetcher", None)
        if hasattr(fetcher, "_session"):  # there is no public way to it
            fetcher._session = _BoundedHttp(fetcher._session, MAX_METADATA_BYTES)  # noqa: SLF001


def bound_commands(resolver: Any) -> None:
    """Let the credential providers of *resolver* run a profile's ``credential_process`` as a :class:`_Command`.

    A role's ``source_profile`` may have one, too; its provider is made when the role is assumed.
    """
    for provider in resolver.providers:
        _run_bounded(provider)
        builder: Any = getattr(provider, "_profile_provider_builder", None)
        if hasattr(builder, "_create_process_provider"):  # there is no public way to it
            make = builder._create_process_provider  # noqa: SLF001
            builder._create_process_provider = lambda name, make=make: _run_bounded(make(name))  # noqa: SLF001


def _run_bounded(provider: Any) -> Any:
    if hasattr(provider, "_popen"):
        provider._popen = _Command  # noqa: SLF001
    return provider


class _Command(subprocess.Popen):  # type: ignore[type-arg]
    """A command whose output is read until the deadline, and :data:`MAX_METADATA_BYTES` of it at most.

    It is killed where it prints more or takes longer: nobody would read on, and another lookup starts it anew.
    """

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[bytes, bytes]:  # noqa: A002, ARG002
        """Return what it printed to its standard output and error.

        :raises StoreError: where it prints too much.
        :raises TimeoutError: where nobody waits for it any more.
        """
        with self, contextlib.ExitStack() as unfinished:
            unfinished.callback(self.kill)  # before the wait for its end
            printed = self._printed()
            try:
                self.wait(_longest_wait())
            except subprocess.TimeoutExpired:
                raise TimeoutError from None
            unfinished.pop_all()
        return printed

    def _printed(self) -> tuple[bytes, bytes]:
        printed: dict[Any, bytearray] = {self.stdout: bytearray(), self.stderr: bytearray()}
        with selectors.DefaultSelector() as pipes:
            for pipe in printed:
                pipes.register(pipe, selectors.EVENT_READ)
            while pipes.get_map():
                if not seconds_left():
                    raise TimeoutError
                for ready, _ in pipes.select(_longest_wait()):
                    part = os.read(ready.fd, CHUNK)
                    if not part:
                        pipes.unregister(ready.fileobj)
                    printed[ready.fileobj] += part
                    if len(printed[ready.fileobj]) > MAX_METADATA_BYTES:
                        raise StoreError(
                            f"the credential_process prints more than {MAX_METADATA_BYTES} bytes", MALFORMED
                        )
        out, errors = printed.values()
        return bytes(out), bytes(errors)


def _longest_wait() -> float | None:
    left = seconds_left()
    return left if left < float("inf") else None


class _BoundedHttp:
    """A botocore HTTP session whose answers are bounded."""

    def __init__(self, session: Any, max_bytes: int = MAX_ANSWER_BYTES) -> None:
        self._session = session
        self._max_bytes = max_bytes

    def send(self, request: Any) -> AWSResponse:
        """Send *request*, and read the whole answer.

        :raises StoreError: for an answer that is too long, not text, or ends early.
        :raises TimeoutError: where nobody waits for it any more.
        """
        request.stream_output = True  # leaves the body to us
        answer = self._session.send(request)
        body = _read(answer.raw, answer.headers.get("Content-Length", ""), self._max_bytes)
        return AWSResponse(answer.url, answer.status_code, answer.headers, Body(_text(body, answer.status_code)))

    def close(self) -> None:
        self._session.close()


class Body:
    """A body that was read, as botocore's AWSResponse takes it."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self) -> Iterator[bytes]:
        """Yield all of it at once."""
        yield self._body


def _read(raw: Any, announced: str, max_bytes: int) -> bytes:
    with contextlib.ExitStack() as unread:
        unread.callback(raw.close)  # or what is left of it would be taken for the next answer
        body = whole_body(raw, announced, max_bytes)
        unread.pop_all()
    return body


def _text(body: bytes, status: int) -> bytes:
    """Return *body*, which botocore takes for UTF-8; of an error's page, what is legible."""
    try:
        body.decode()
    except UnicodeDecodeError:
        readable = body.decode(errors="replace").encode()
    else:
        return body
    if status < _FIRST_ERROR:
        raise StoreError("the answer is not UTF-8", MALFORMED)
    return readable

"""Limits that botocore's transport lacks: how much is read, for how long, and whether the answer is complete."""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import botocore.session
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.credentials import EnvProvider
from botocore.exceptions import HTTPClientError
from botocore.httpsession import create_urllib3_context, get_cert_path
from urllib3 import Timeout
from urllib3.exceptions import LocationValueError

from airflow_providers_secrets.errors import ConfigurationError, quoted
from airflow_providers_secrets.options import with_usable_port
from airflow_providers_secrets.stores.aws.store import (
    BAD_CONFIG,
    BAD_CREDENTIALS,
    BAD_PROXY,
    BAD_REQUEST,
    BAD_URL,
    CLIENT_CERTIFICATE,
    CONTAINER_REFUSED,
    WHITE_SPACE,
    is_pythons,
    unusable,
)
from airflow_providers_secrets.stores.base import (
    BAD_BUNDLE,
    CHUNK,
    GRACE,
    LOGIN_REFUSED,
    MALFORMED,
    StoreError,
    seconds_left,
    whole_body,
)
from airflow_providers_secrets.stores.certificates import context_of

MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024
"""Maximum length of an answer, in bytes. The longest that AWS gives is a batch of 20 secrets of 64 kB each."""

MAX_METADATA_BYTES: Final = 64 * 1024
"""Maximum length, in bytes, of an answer from a host's or container's metadata service, which only gives credentials.

It also limits each of the two streams that a profile's ``credential_process`` prints to.
"""

_FIRST_ERROR: Final = 300
_PASSING: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
"""The errors of this host in reading a file that say nothing of the file."""


class BoundedSession(botocore.session.Session):  # type: ignore[misc]  # botocore is untyped
    """A botocore session whose clients, including those that fetch credentials, read answers of limited length.

    The output of a profile's command is limited as well, and there is no prompt for an MFA code. Credentials and
    settings that cannot be used are a :class:`.StoreError` that says so.
    """

    def get_credentials(self) -> Any:
        """Return the session's credentials, which it looks for once; ``None`` if there are none."""
        with unusable(BAD_CREDENTIALS):
            found = super().get_credentials()
        if getattr(found, "method", None) == EnvProvider.METHOD:
            _refuse_white_space()
        return found

    def _create_credential_resolver(self) -> Any:
        resolver: Any = super()._create_credential_resolver()
        bound_metadata(resolver)
        bound_commands(resolver)
        for provider in resolver.providers:
            if hasattr(provider, "_prompter"):  # there is no public access to it
                provider._prompter = no_prompt("the profile's 'mfa_serial'")  # noqa: SLF001
        return resolver

    def create_client(self, *args: Any, **kwargs: Any) -> Any:
        """Create a client as botocore does, and limit the answers that it reads."""
        with unusable(BAD_CONFIG, BAD_URL):
            client = super().create_client(*args, **kwargs)
            bound_answers(client)
        return client


def _refuse_white_space() -> None:
    """Refuse keys with white space around them, which AWS would not know, and a token that no header can hold."""
    token = next((name for name in EnvProvider.TOKENS if name in os.environ), None)
    for name in filter(None, ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", token)):
        value = os.environ.get(name, "")
        # Spaces around a token are neither signed nor delivered: a header's value is trimmed.
        if value != value.strip("\r\n" if name == token else None):
            raise StoreError(f"white space around {name}", WHITE_SPACE)


def bounds(options: Mapping[str, Any]) -> Config:
    """Return a Config with the time-outs of one attempt and no retries: the lookup itself makes further attempts."""
    return Config(
        connect_timeout=options["connect_timeout"],
        read_timeout=options["read_timeout"],
        retries={"mode": "standard", "total_max_attempts": 1},
    )


def no_prompt(setting: str) -> Callable[[str], str]:
    """Return a prompter for botocore that refuses to ask for an MFA code, and names *setting* as the cause."""

    def refuse(_: str) -> str:
        raise ConfigurationError(f"{setting} asks for an MFA code, which nobody can type here.")

    return refuse


def bound_answers(client: Any) -> None:
    """Let *client* read only complete answers, of :data:`MAX_ANSWER_BYTES` at most, and wait only until the deadline.

    Its connections are verified with certificates that are read here, once for a process and its children.

    :raises ConfigurationError: if this botocore's transport lacks what is needed.
    :raises ValueError: if its server's address has an invalid port, which botocore would find only at the first call.
    """
    endpoint: Any = getattr(client, "_endpoint", None)  # there is no public access to it
    if not hasattr(endpoint, "http_session"):
        raise ConfigurationError(
            f"botocore {botocore.__version__} has no 'http_session' to bound; install an older boto3, and report this."
        )
    url = with_usable_port(str(getattr(endpoint, "host", "")))
    set_up_pools(endpoint.http_session, url)
    endpoint.http_session = _BoundedHttp(endpoint.http_session)
    endpoint.create_request = unusable(BAD_CREDENTIALS)(endpoint.create_request)  # it renews and signs


class _UntilDeadline(Timeout):
    """A pool's time-outs, of which each request takes a copy in its own thread: none outlasts that call's deadline."""

    def clone(self) -> Timeout:
        """Return the time-outs of one request."""
        left = seconds_left() + GRACE
        connect: Any = self.connect_timeout
        read: Any = self.read_timeout
        return Timeout(connect=min(connect, left), read=min(read, left))


def set_up_pools(session: Any, url: str) -> None:
    """Let no connection of a botocore HTTP session wait beyond the call's deadline, or read certificates by itself.

    They are read once, until they change. Client certificates, and connections through a proxy reached over TLS, are
    left to botocore.

    :param url: the session's server; the certificates to verify it with, and the client's, are read at once.
    :raises StoreError: if they cannot be read.
    """
    set_up: Any = getattr(session, "_setup_ssl_cert", None)  # there is no public access to it
    if set_up is None:
        return

    def set_up_once(pool: Any, url: str, verify: bool | str) -> None:  # noqa: FBT001  # botocore's signature
        set_up(pool, url, verify)
        if not isinstance(pool.timeout, _UntilDeadline):
            pool.timeout = _UntilDeadline(connect=pool.timeout.connect_timeout, read=pool.timeout.read_timeout)
        if pool.ca_certs and not pool.cert_file and getattr(pool.proxy, "scheme", None) != "https":
            pool.conn_kw["ssl_context"] = _trusting(pool.ca_certs)
            pool.ca_certs = None

    session._setup_ssl_cert = set_up_once  # noqa: SLF001
    verify: bool | str = getattr(session, "_verify", False)
    if url.lower().startswith("https:"):
        if verify:
            _trusting(get_cert_path(verify))
        _refuse_unusable(getattr(session, "_cert_file", None), getattr(session, "_key_file", None))
    proxies = getattr(getattr(session, "_proxy_config", None), "settings", None) or {}
    of_proxy = proxies.get("proxy_client_cert")
    _refuse_unusable(*(of_proxy if isinstance(of_proxy, tuple) else (of_proxy,)))


def _refuse_unusable(certificate: str | None, key: str | None = None) -> None:
    """Refuse a client certificate that OpenSSL cannot use; it would ask for a key's password at the terminal."""
    if not certificate:
        return
    missing = (path for path in (certificate, key) if path and not Path(path).exists())
    with _readable(f"the client certificate {quoted(next(missing, key or certificate))}", CLIENT_CERTIFICATE):
        create_urllib3_context().load_cert_chain(certificate, key, password="")


def _trusting(path: str) -> ssl.SSLContext:
    with _readable(f"the CA bundle {quoted(path)}", BAD_BUNDLE):
        return context_of(path, create_urllib3_context)


@contextlib.contextmanager
def _readable(what: str, code: str) -> Iterator[None]:
    """Turn an error in reading a file into a :class:`.StoreError` about *what*, unless it says nothing of the file."""
    try:
        yield
    except (OSError, ValueError) as error:
        # An SSLError's number is OpenSSL's.
        if not isinstance(error, ssl.SSLError) and getattr(error, "errno", None) in _PASSING:
            raise
        fault = type(error).__name__
    else:
        return
    raise StoreError(f"{what} cannot be read ({fault})", code)


def bound_metadata(resolver: Any) -> None:
    """Limit the answers that the credential providers of *resolver* read from a host's or container's own service."""
    for provider in resolver.providers:
        for attribute, bounded in (("_role_fetcher", _BoundedHttp), ("_fetcher", _ContainerHttp)):
            fetcher: Any = getattr(provider, attribute, None)
            if hasattr(fetcher, "_session"):  # there is no public access to it
                fetcher._session = bounded(fetcher._session, MAX_METADATA_BYTES, BAD_CREDENTIALS)  # noqa: SLF001


def bound_commands(resolver: Any) -> None:
    """Make the credential providers of *resolver* run a profile's ``credential_process`` as a :class:`_Command`.

    A role's ``source_profile`` may have one, too; its provider is created when the role is assumed.
    """
    for provider in resolver.providers:
        _run_bounded(provider)
        builder: Any = getattr(provider, "_profile_provider_builder", None)
        if hasattr(builder, "_create_process_provider"):  # there is no public access to it
            make = builder._create_process_provider  # noqa: SLF001
            builder._create_process_provider = lambda name, make=make: _run_bounded(make(name))  # noqa: SLF001


def _run_bounded(provider: Any) -> Any:
    if hasattr(provider, "_popen"):
        provider._popen = _Command  # noqa: SLF001
    return provider


class _Command(subprocess.Popen):  # type: ignore[type-arg]
    """A command of whose output at most :data:`MAX_METADATA_BYTES` are read, until the deadline.

    If it prints more or takes longer, it is killed: nobody would read the rest, and another lookup starts a new one.
    """

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[bytes, bytes]:  # noqa: A002, ARG002
        """Return its standard output and standard error.

        :raises StoreError: if it prints too much.
        :raises TimeoutError: once the deadline has passed.
        """
        with self, contextlib.ExitStack() as unfinished:
            unfinished.callback(self.kill)  # runs before `with self` waits for the process
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
    """A botocore HTTP session whose answers have a maximum length.

    :param bad_url: the code for an address that is no URL. A client's own is checked when the client is created
        (:func:`bound_answers`), so that of a proxy is left.
    """

    def __init__(self, session: Any, max_bytes: int = MAX_ANSWER_BYTES, bad_url: str = BAD_PROXY) -> None:
        self._session = session
        self._max_bytes = max_bytes
        self._bad_url = bad_url

    def send(self, request: Any) -> AWSResponse:
        """Send *request*, and read the whole answer.

        :raises StoreError: for an answer that is too long, not text, or ends early; for a request that cannot be sent.
        :raises TimeoutError: once the deadline has passed.
        """
        if not seconds_left():  # do not begin what nobody waits for
            raise TimeoutError
        request.stream_output = True  # leaves the body to us
        answer = self._sent(request)
        try:
            body = whole_body(answer.raw, answer.headers.get("Content-Length"), self._max_bytes)
        finally:
            answer.raw.close()  # ends the connection, unless all was read: the rest would be the next answer
        return AWSResponse(answer.url, answer.status_code, answer.headers, Body(_text(body, answer.status_code)))

    def _sent(self, request: Any) -> Any:
        """Return the session's answer; a fault of this host, which botocore takes for one of the network, as such."""
        try:
            return self._session.send(request)
        except HTTPClientError as error:
            cause: object = error.kwargs.get("error")
            if type(error) is not HTTPClientError or not isinstance(cause, Exception):  # a time-out, a cut connection
                raise
            if isinstance(cause, StoreError):
                fault = cause
            elif isinstance(cause, LocationValueError):
                fault = StoreError(self._bad_url)
            elif is_pythons(cause):
                fault = StoreError(f"{BAD_REQUEST} ({type(cause).__name__})", BAD_REQUEST)
            else:
                raise
        raise fault

    def close(self) -> None:
        self._session.close()


class _ContainerHttp(_BoundedHttp):
    """That of a container's credentials. botocore takes their refusal for an outage, and would ask twice more."""

    def send(self, request: Any) -> AWSResponse:
        """Send *request*, and read the whole answer.

        :raises StoreError: if the credentials are refused, too.
        """
        answer = super().send(request)
        status = answer.status_code
        if (
            HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
            and status != HTTPStatus.TOO_MANY_REQUESTS
        ):
            raise StoreError(f"a container's credentials refused with HTTP {status}", CONTAINER_REFUSED, LOGIN_REFUSED)
        return answer


class Body:
    """A body that was already read, in the form that botocore's AWSResponse expects."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self) -> Iterator[bytes]:
        """Yield all of it at once."""
        yield self._body


def _text(body: bytes, status: int) -> bytes:
    """Return *body*, which botocore decodes as UTF-8; in an error's page, other bytes are replaced."""
    if status >= _FIRST_ERROR:
        return body.decode(errors="replace").encode()
    with contextlib.suppress(UnicodeDecodeError):
        body.decode()
        return body
    raise StoreError("the answer is not UTF-8", MALFORMED)

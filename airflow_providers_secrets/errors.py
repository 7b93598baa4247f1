"""Every error this package raises, in one tree.

The errors inherit from :class:`SecretsError` and from the fitting builtin, so that a caller can catch
either. No message, attribute or chained exception of theirs ever holds a secret value.
"""

from __future__ import annotations

from typing import Final


class SecretsError(Exception):
    """Base of all errors of this package."""


class ConfigurationError(SecretsError, ValueError):
    """An option is missing, unknown, contradictory or of the wrong type.

    Raised by a backend's constructor whenever the fault can be seen there, which stops Airflow at start-up;
    otherwise at the first lookup. The message names the option and the cure.
    """


class MissingDependencyError(ConfigurationError, ImportError):
    """The store's SDK is not installed. The message names the extra that brings it."""


class NoSharedKeyError(ConfigurationError):
    """Airflow has no Fernet key to encrypt the shared cache with, or cannot read it, and no option names another one.

    A lookup never raises it: it goes on without the shared cache, with a warning.
    """


class Unusable(Exception):
    """Why a stored text cannot be used, as the end of a sentence; never holds any of the text.

    Internal, and outside the tree: whoever decodes knows whose text it is, and raises :class:`InvalidSecret` of it.
    """


class LookupFailed(SecretsError):
    """A lookup ended without an answer: neither a value nor a proof that there is none.

    :param store: the store in words, for example ``AWS SSM Parameter Store``.
    :param name: the name asked for, in the store's spelling, as :func:`shown_id` cuts it.
    :param code: the store's or SDK's own code of the failure.
    :param advice: what the reader should do about it, as a full sentence.
    :param act: what was asked of the store: give, list, write, delete or identify.
    """

    on_the_way = False
    """Whether the fault is before the store: this process's, its host's, or of what answers in the store's place. Then
    what the store said before counts as in an outage, and no other process is told."""

    @property
    def store_has_spoken(self) -> bool:
        """Whether the store itself has said this of the name, so that nothing it gave before counts any more."""
        return not self.on_the_way

    def __init__(self, store: str, name: str, code: str, advice: str, act: str = "give") -> None:
        code = printable(code, MAX_CODE_LENGTH)
        name = shown_id(name)
        super().__init__(f"{store} could not {act} {quoted(name)}: {code}. {advice}")
        self.store = store
        self.name = name
        self.code = code
        self.advice = advice
        self.act = act

    def __reduce__(self) -> tuple[type[LookupFailed], tuple[str, str, str, str, str], dict[str, bool]]:
        # Exceptions pickle by their args, which hold the message alone; task processes do pickle them.
        arguments = self.store, self.name, self.code, self.advice, self.act
        return type(self), arguments, {"on_the_way": self.on_the_way}


class SecretNotFound(LookupFailed, LookupError):
    """The store proved that the name does not exist. Internal: Airflow is answered ``None``."""


class AccessDenied(LookupFailed, PermissionError):
    """The store refuses the name to this identity, or its decryption."""


class StoreUnavailable(LookupFailed, ConnectionError):
    """The store could not be reached, is throttling, is broken, or did not answer before the deadline."""

    store_has_spoken = False


class InvalidSecret(LookupFailed, ValueError):
    """The name exists, and what it holds cannot be used: binary, blank, oversized or malformed."""


class SecretRevoked(LookupFailed):
    """The name exists, and its value was deleted, disabled or destroyed."""


class StoreMisconfigured(LookupFailed, ConfigurationError):
    """The store or SDK says that the options are wrong: no credentials, no region, a bad signature."""


def raise_interruption(error: Exception) -> None:
    """Raise what a signal's handler raised (``AirflowTaskTimeout``, Ctrl-C) where *error* is but its consequence.

    A handler that raises while ``threading.Condition.wait`` has let its lock go makes the ``with`` around that lock
    fail: "release unlocked lock". The interpreter then raises that RuntimeError in its place.
    """
    link: BaseException | None = error
    while isinstance(link, RuntimeError):
        link = link.__context__
    if link is not None and not isinstance(link, Exception):
        raise link


MAX_CODE_LENGTH: Final = 200
"""The longest code shown in a message, in characters; some codes come from whoever answers."""


def printable(text: str, limit: int) -> str:
    """Cut *text* at *limit* characters and escape what is not printable, so that it forges no line of a log."""
    cut = text if len(text) <= limit else f"{text[: limit - 1]}…"
    return cut if cut.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in cut)


def shown_id(secret_id: str) -> str:
    """Cut an id or name where it seems to hold a value: a connection string in the place of a secret's id.

    Of one with ``://``, what precedes it is kept; of another one with ``@``, what precedes the login.
    """
    start, at, _ = secret_id.partition("@")
    head, found, _ = start.partition("://")
    if found:
        return f"{head}://…"
    return f"{start[: start.partition(':')[0].rfind('/') + 1]}…" if at else secret_id


def quoted(text: object, limit: int = 128) -> str:
    """Quote an id, a name or another short text for a message or log line.

    It is cut at *limit* characters and as :func:`shown_id` says, and its control characters are escaped.
    """
    quoted = repr(shown_id(text) if isinstance(text, str) else text)
    return quoted if len(quoted) <= limit else f"{quoted[: limit - 1]}…"

"""The errors of options and lookups, in one tree.

The errors inherit from :class:`SecretsError` and from the matching built-in exception, so that a caller can catch
either. None of their messages, attributes or chained exceptions ever holds a secret value.
"""

from __future__ import annotations

from collections.abc import Iterable
from json import JSONDecodeError
from typing import Final


class SecretsError(Exception):
    """Base of all errors of this package."""


class ConfigurationError(SecretsError, ValueError):
    """An option is missing, unknown, contradictory or of the wrong type.

    A backend's constructor raises it for every problem that can be detected there, which stops Airflow at start-up;
    otherwise the first lookup raises it. The message names the option and the fix.
    """


class MissingDependencyError(ConfigurationError, ImportError):
    """The store's SDK is not installed. The message names the extra that installs it."""


class NoSharedKeyError(ConfigurationError):
    """Airflow's Fernet key, which encrypts the shared cache, is missing or unreadable, and no option sets another one.

    No lookup raises it: lookups continue without the shared cache, and log a warning.
    """


class Unusable(Exception):
    """Why a stored text cannot be used, phrased as the end of a sentence; never holds any of the text.

    Internal, and outside the tree: the code that decodes knows which secret the text belongs to, and raises
    :class:`InvalidSecret` instead.
    """


class LookupFailed(SecretsError):
    """A lookup ended without an answer: neither a value nor a proof that there is none.

    :param store: the store in words, for example ``AWS SSM Parameter Store``.
    :param name: the requested name in the store's spelling, redacted by :func:`shown_id`.
    :param code: the store's or SDK's own code for the failure.
    :param advice: what the reader should do about it, as a full sentence.
    :param act: the operation that failed: give, list, write, delete or identify.
    """

    on_the_way = False
    """Whether the lookup failed before it reached the store: in this process, on its host, or at something that answers
    in the store's place. Earlier answers of the store then count as they do in an outage, and other processes are not
    told."""

    @property
    def store_has_spoken(self) -> bool:
        """Whether this is the store's own answer for the name, so that its earlier answers no longer count."""
        return not self.on_the_way

    def __init__(self, store: str, name: str, code: str, advice: str, act: str = "give") -> None:
        code = printable(code, MAX_CODE_LENGTH)
        name = shown_id(name)
        what = "say who is asking" if act == "identify" else f"{act} {quoted(name)}"
        super().__init__(f"{store} could not {what}: {code}. {advice}")
        self.store = store
        self.name = name
        self.code = code
        self.advice = advice
        self.act = act

    def __reduce__(self) -> tuple[type[LookupFailed], tuple[str, str, str, str, str], dict[str, bool]]:
        # Exceptions are pickled by their args, which hold only the message; task processes do pickle them.
        arguments = self.store, self.name, self.code, self.advice, self.act
        return type(self), arguments, {"on_the_way": self.on_the_way}


class SecretNotFound(LookupFailed, LookupError):
    """The store proved that the name does not exist. Internal: Airflow gets ``None``."""


class AccessDenied(LookupFailed, PermissionError):
    """The store denies this identity access to the secret, or its decryption."""


class StoreUnavailable(LookupFailed, ConnectionError):
    """The store could not be reached, is throttling, is broken, or did not answer before the deadline."""

    store_has_spoken = False


class InvalidSecret(LookupFailed, ValueError):
    """The name exists, but its value cannot be used: binary, blank, oversized or malformed."""


class SecretRevoked(LookupFailed):
    """The name exists, but its value was deleted, disabled or destroyed."""


class StoreMisconfigured(LookupFailed, ConfigurationError):
    """The store or SDK reports that the options are wrong: no credentials, no region, a bad signature."""


def json_place(error: Exception) -> str:
    """Return where a text stops being JSON, as `` (line 1, column 2)``; empty for another error.

    The error itself holds the whole text, and must not be chained.
    """
    return f" (line {error.lineno}, column {error.colno})" if isinstance(error, JSONDecodeError) else ""


def did_you_mean(name: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """Return the end of a message that refuses *name*: which one of *known* was probably meant.

    :param otherwise: the end if none is like it; by default, all of *known*.
    """
    import difflib  # rarely needed, and would slow every first lookup

    known = sorted(known)
    likely = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {likely[0]!r}?" if likely else otherwise or f"known: {', '.join(known)}."


def raise_interruption(error: Exception) -> None:
    """Raise the exception of a signal handler (``AirflowTaskTimeout``, Ctrl-C) if *error* is only its consequence.

    If a handler raises while ``threading.Condition.wait`` has released its lock, the ``with`` around that lock fails:
    "release unlocked lock". The interpreter then raises that RuntimeError instead.
    """
    link: BaseException | None = error
    while isinstance(link, RuntimeError):
        link = link.__context__
    if link is not None and not isinstance(link, Exception):
        raise link


MAX_CODE_LENGTH: Final = 200
"""The longest code shown in a message, in characters; some codes come from whatever server answered."""


def printable(text: str, limit: int) -> str:
    """Truncate *text* to *limit* characters and escape non-printable ones, so that it cannot forge a log line."""
    cut = text if len(text) <= limit else f"{text[: limit - 1]}…"
    return cut if cut.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in cut)


def shown_id(secret_id: str) -> str:
    """Redact an id or name that seems to hold a value: a connection string where a secret's id belongs.

    If it contains ``://``, the part before that is kept; otherwise, if it contains ``@``, the part before the login.
    """
    start, at, _ = secret_id.partition("@")
    head, found, _ = start.partition("://")
    if found:
        return f"{head}://…"
    return f"{start[: start.partition(':')[0].rfind('/') + 1]}…" if at else secret_id


def quoted(text: object, limit: int = 128) -> str:
    """Quote an id, a name or another short text for a message or log line.

    It is redacted by :func:`shown_id`, truncated to *limit* characters, and its control characters are escaped.
    """
    quoted = repr(shown_id(text) if isinstance(text, str) else text)
    return quoted if len(quoted) <= limit else f"{quoted[: limit - 1]}…"

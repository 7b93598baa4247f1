"""Every error this package raises, in one tree.

The errors inherit from :class:`SecretsError` and from the fitting builtin, so that a caller can catch
either. No message, attribute or chained exception of theirs ever holds a secret value.
"""

from __future__ import annotations


class SecretsError(Exception):
    """Base of all errors of this package."""


class ConfigurationError(SecretsError, ValueError):
    """An option is missing, unknown, contradictory or of the wrong type.

    Raised by a backend's constructor whenever the fault can be seen there, which stops Airflow at start-up;
    otherwise at the first lookup. The message names the option and the cure.
    """


class MissingDependencyError(ConfigurationError, ImportError):
    """The store's SDK is not installed. The message names the extra that brings it."""


class LookupFailed(SecretsError):
    """A lookup ended without an answer: neither a value nor a proof that there is none.

    :param store: the store in words, for example ``AWS SSM Parameter Store``.
    :param name: the name asked for, in the store's spelling.
    :param code: the store's or SDK's own code of the failure.
    :param advice: what the reader should do about it, as a full sentence.
    """

    def __init__(self, store: str, name: str, code: str, advice: str) -> None:
        super().__init__(f"{store} could not give {shown(name)}: {code}. {advice}")
        self.store = store
        self.name = name
        self.code = code
        self.advice = advice

    def __reduce__(self) -> tuple[type[LookupFailed], tuple[str, str, str, str]]:
        # Exceptions pickle by their args, which hold the message alone; task processes do pickle them.
        return type(self), (self.store, self.name, self.code, self.advice)


class SecretNotFound(LookupFailed, LookupError):
    """The store proved that the name does not exist. Internal: Airflow is answered ``None``."""


class AccessDenied(LookupFailed, PermissionError):
    """The store refuses the name to this identity, or its decryption."""


class StoreUnavailable(LookupFailed, ConnectionError):
    """The store could not be reached, is throttling, is broken, or did not answer before the deadline."""


class InvalidSecret(LookupFailed, ValueError):
    """The name exists, and what it holds cannot be used: binary, blank, oversized or malformed."""


class SecretRevoked(LookupFailed):
    """The name exists, and its value was deleted, disabled or destroyed."""


class StoreMisconfigured(LookupFailed, ConfigurationError):
    """The store or SDK says that the options are wrong: no credentials, no region, a bad signature."""


def shown(text: object, limit: int = 128) -> str:
    """Quote *text* for a message or log line: control characters escaped, cut at *limit* characters."""
    quoted = repr(text)
    return quoted if len(quoted) <= limit else f"{quoted[: limit - 1]}…"

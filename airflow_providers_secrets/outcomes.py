"""The outcome classes of a lookup, and which error and advice stand for each."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from airflow_providers_secrets.errors import (
    AccessDenied,
    ConfigurationError,
    InvalidSecret,
    LookupFailed,
    SecretNotFound,
    SecretRevoked,
    SecretsError,
    StoreMisconfigured,
    StoreUnavailable,
)


class Outcome(enum.Enum):
    """What one lookup came to.

    Only an answer that *proves* absence is :attr:`NOT_FOUND`; an error, a time-out, a proxy's bare
    404 or an unreadable answer never is.
    """

    FOUND = "found"
    NOT_FOUND = "not found"
    DENIED = "denied"
    REVOKED = "revoked"
    UNAVAILABLE = "unavailable"
    THROTTLED = "throttled"
    """A kind of UNAVAILABLE that is retried after a longer pause."""
    INVALID = "invalid"
    MISCONFIGURED = "misconfigured"


RETRIED: Final = frozenset({Outcome.UNAVAILABLE, Outcome.THROTTLED})
"""The outcomes that another attempt may change."""

ERRORS: Final[Mapping[Outcome, type[LookupFailed]]] = {
    Outcome.NOT_FOUND: SecretNotFound,
    Outcome.DENIED: AccessDenied,
    Outcome.REVOKED: SecretRevoked,
    Outcome.UNAVAILABLE: StoreUnavailable,
    Outcome.THROTTLED: StoreUnavailable,
    Outcome.INVALID: InvalidSecret,
    Outcome.MISCONFIGURED: StoreMisconfigured,
}

ADVICE: Final[Mapping[Outcome, str]] = {
    Outcome.NOT_FOUND: "Create it, or ask for another name.",
    Outcome.DENIED: "Allow the backend's identity to read it.",
    Outcome.REVOKED: "Restore it or write a new version.",
    Outcome.UNAVAILABLE: "Check that the store can be reached from this host and is healthy.",
    Outcome.THROTTLED: "Ask for fewer lookups (lookup patterns) or raise the store's quota.",
    Outcome.INVALID: "Write the secret anew in a form that Airflow reads.",
    Outcome.MISCONFIGURED: "Mend the backend's options or the environment's credentials.",
}
"""What to do, where a backend's own advice says nothing nearer."""

TLS_REASONS: Final[Mapping[str, Outcome]] = {
    "CERTIFICATE_VERIFY_FAILED": Outcome.MISCONFIGURED,
    "WRONG_VERSION_NUMBER": Outcome.MISCONFIGURED,
}
"""What OpenSSL's reasons mean, of any store: the wrong bundle of certificates, or a port that does not speak TLS."""

POLICY_OPTION: Final[Mapping[type[SecretsError], str]] = {
    AccessDenied: "on_denied",
    SecretRevoked: "on_revoked",
    StoreUnavailable: "on_unavailable",
    InvalidSecret: "on_invalid",
    # A store that cannot be asked gives no answer, whoever is to blame: a weaker source must not step in.
    # StoreMisconfigured is one of these, and so are a missing SDK and what only a first lookup can judge.
    ConfigurationError: "on_unavailable",
}
"""Which option says whether an error lets Airflow fall through to its next source."""

"""AWS SSM Parameter Store."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from airflow_providers_secrets.stores.aws.store import COMMON_ADVICE, COMMON_OUTCOMES, AwsStore, pages, tags_of
from airflow_providers_secrets.stores.base import EXISTS, MALFORMED, Answer, ListedSecret, Outcome, StoreError, Written

if TYPE_CHECKING:
    from airflow_providers_secrets.stores.aws.session import AwsClient

KEPT: Final = ("Type", "KeyId", "Description", "AllowedPattern", "DataType")
"""Attributes that a new version would otherwise lose or reset to a default. The tier Advanced is kept, too."""


LARGEST_ADVANCED: Final = 8192
"""Maximum number of bytes of a parameter in the tier Advanced."""


class ParameterStore(AwsStore):
    """AWS SSM Parameter Store."""

    service = "ssm"
    session_name = "airflow_systemsmanagerparameterstorebackend__connection"
    outcomes: ClassVar = {
        **COMMON_OUTCOMES,
        "ParameterNotFound": Outcome.NOT_FOUND,
        "InvalidKeyId": Outcome.DENIED,
        "InternalServerError": Outcome.UNAVAILABLE,
        **dict.fromkeys(
            (
                "HierarchyLevelLimitExceededException",
                "HierarchyTypeMismatchException",
                "InvalidAllowedPatternException",
                "ParameterLimitExceeded",
                "ParameterMaxVersionLimitExceeded",
                "ParameterPatternMismatchException",
                "PoliciesLimitExceededException",
                "UnsupportedParameterType",
            ),
            Outcome.INVALID,
        ),
        "TooManyUpdates": Outcome.THROTTLED,
    }
    advice: ClassVar = {
        **COMMON_ADVICE,
        Outcome.DENIED: "Allow the backend's identity ssm:GetParameter on it, and kms:Decrypt on a SecureString's key.",
        **dict.fromkeys(
            ("InvalidKeyId of GetParameter", "InvalidKeyId of GetParametersByPath"),
            "Allow the backend's identity kms:Decrypt on its key, which must exist and be enabled.",
        ),
        "AccessDeniedException of GetParametersByPath": "Allow the identity ssm:GetParametersByPath on the path.",
        "AccessDeniedException of PutParameter": "Allow the identity ssm:PutParameter on it, kms:Encrypt on its key.",
        "AccessDeniedException of DescribeParameters": "Allow the identity ssm:DescribeParameters on *.",
        "AccessDeniedException of DeleteParameter": "Allow the identity ssm:DeleteParameter on it.",
        "InvalidKeyId of PutParameter": "Name a key that exists, is enabled and may encrypt in the setting 'key_id'.",
        "ValidationException of PutParameter": "Write at most 4 KB, or set 'tier' to Advanced for 8 KB.",
    }
    write_settings: ClassVar = {
        "type": "String or SecureString (the default of a new parameter)",
        "key_id": "the KMS key of a SecureString; else the account's default key",
        "tier": "Standard, Advanced or Intelligent-Tiering; never back from Advanced",
        "description": "a description, not encrypted",
        "tags": "KEY=VALUE,KEY=VALUE, for a new parameter alone",
    }
    largest_value = 4096

    def fetch(self, client: AwsClient, name: str) -> Answer:
        """Read one parameter, decrypted."""
        parameter = client.service.get_parameter(Name=name, WithDecryption=True).get("Parameter") or {}
        value = parameter.get("Value")
        if not isinstance(value, str):
            raise StoreError("the answer holds no value", MALFORMED)
        return Answer(value, _rooted(parameter.get("Name")))

    def listing(self, client: AwsClient, prefix: str) -> Iterator[ListedSecret]:
        """Yield all parameters under *prefix*, decrypted, ten per page.

        Needs ``ssm:GetParametersByPath`` on the path. See `GetParametersByPath
        <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParametersByPath.html>`_.
        """
        path = prefix.rpartition("/")[0] or "/"
        ask = client.service.get_parameters_by_path
        for page in pages(ask, "Parameters", Path=path, Recursive=True, WithDecryption=True, MaxResults=10):
            for parameter in page["Parameters"]:
                name = _rooted(parameter["Name"])
                if name.startswith(prefix):
                    version, changed = parameter.get("Version"), parameter.get("LastModifiedDate")
                    yield ListedSecret(name, parameter["Value"], version and str(version), changed)

    def write(
        self,
        client: AwsClient,
        name: str,
        text: str,
        *,
        only_if_absent: bool = False,
        settings: Mapping[str, str] = {},
    ) -> Written:
        """Create a parameter, or a new version of it with its type, key, tier, description and pattern.

        A setting replaces the parameter's own. Needs ``ssm:PutParameter`` on it, and ``ssm:DescribeParameters`` on
        ``*`` unless *only_if_absent* is set. See `PutParameter
        <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_PutParameter.html>`_.
        """
        tags = tags_of(settings.get("tags", ""))
        given = {"Type": "type", "KeyId": "key_id", "Tier": "tier", "Description": "description"}
        chosen = {argument: settings[setting] for argument, setting in given.items() if settings.get(setting)}
        taken = client.service.exceptions.ParameterAlreadyExists
        for _ in range(1 if only_if_absent else 2):  # a second time if somebody else creates it in between
            kept = {} if only_if_absent else _kept(client, name)
            arguments: dict[str, Any] = {"Type": "SecureString", **kept, **chosen}
            if arguments["Type"] != "SecureString":
                arguments.pop("KeyId", None)
            if kept:
                arguments["Overwrite"] = True
            elif tags:
                arguments["Tags"] = tags
            with contextlib.suppress(taken):
                done = client.service.put_parameter(Name=name, Value=text, **arguments)
                return Written(created=not kept, version=str(done["Version"]))
        raise StoreError("it exists already", EXISTS)

    def largest_value_with(self, settings: Mapping[str, str]) -> int | None:
        """Return the maximum of the tier."""
        return self.largest_value if settings.get("tier", "Standard") == "Standard" else LARGEST_ADVANCED

    def delete(self, client: AwsClient, name: str) -> None:
        """Delete a parameter with all its versions, permanently; its name can be used again after half a minute.

        Needs ``ssm:DeleteParameter``.
        """
        client.service.delete_parameter(Name=name)


def _rooted(name: Any) -> Any:
    """Return *name* as lookups request it: a parameter at the root may have been created without its slash."""
    return name if not isinstance(name, str) or name.startswith("/") else f"/{name}"


def _kept(client: AwsClient, name: str) -> dict[str, Any]:
    """Return the attributes of an existing parameter that a new version keeps; empty if there is no parameter."""
    names = [name, name[1:]] if name.count("/") == 1 else [name]  # the slash may be missing
    filters = [{"Key": "Name", "Option": "Equals", "Values": names}]
    for page in pages(client.service.describe_parameters, "Parameters", ParameterFilters=filters):
        for parameter in page["Parameters"]:
            kept = {field: parameter[field] for field in KEPT if parameter.get(field)}
            return {**kept, "Tier": "Advanced"} if parameter.get("Tier") == "Advanced" else kept
    return {}

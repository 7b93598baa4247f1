"""The part of the AWS service models that this package calls.

botocore makes a client from the whole model of a service: for SSM 144 kB of compressed JSON, of which we use
one operation of 150. Parsing it is most of a client's cost and sets off a garbage collection of Airflow's
heap. These are the same models with nothing else in them; a test holds them against the installed botocore's.

Facts: the API references of `SSM
<https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameter.html>`_ and `Secrets Manager
<https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html>`_.
"""

from __future__ import annotations

from typing import Any, Final

_STRING: Final = {"type": "string"}


def _operation(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "http": {"method": "POST", "requestUri": "/"},
        "input": {"shape": f"{name}Request"},
        "output": {"shape": f"{name}Response"},
    }


def _structure(required: tuple[str, ...] = (), **members: str) -> dict[str, Any]:
    shape: dict[str, Any] = {
        "type": "structure",
        "members": {member: {"shape": shape} for member, shape in members.items()},
    }
    return {**shape, "required": list(required)} if required else shape


SSM: Final[dict[str, Any]] = {
    "version": "2.0",
    "metadata": {
        "apiVersion": "2014-11-06",
        "auth": ["aws.auth#sigv4"],
        "endpointPrefix": "ssm",
        "jsonVersion": "1.1",
        "protocol": "json",
        "protocols": ["json"],
        "serviceAbbreviation": "Amazon SSM",
        "serviceFullName": "Amazon Simple Systems Manager (SSM)",
        "serviceId": "SSM",
        "signatureVersion": "v4",
        "targetPrefix": "AmazonSSM",
        "uid": "ssm-2014-11-06",
    },
    "operations": {name: _operation(name) for name in ("GetParameter", "GetParametersByPath")},
    "shapes": {
        "String": _STRING,
        "Boolean": {"type": "boolean"},
        "Integer": {"type": "integer"},
        "GetParametersByPathRequest": _structure(
            ("Path",),
            Path="String",
            Recursive="Boolean",
            WithDecryption="Boolean",
            MaxResults="Integer",
            NextToken="String",
        ),
        "GetParametersByPathResponse": _structure(Parameters="ParameterList", NextToken="String"),
        "ParameterList": {"type": "list", "member": {"shape": "Parameter"}},
        "GetParameterRequest": _structure(("Name",), Name="String", WithDecryption="Boolean"),
        "GetParameterResponse": _structure(Parameter="Parameter"),
        "Parameter": _structure(Name="String", Type="String", Value="String"),
    },
}

SECRETS_MANAGER: Final[dict[str, Any]] = {
    "version": "2.0",
    "metadata": {
        "apiVersion": "2017-10-17",
        "auth": ["aws.auth#sigv4"],
        "endpointPrefix": "secretsmanager",
        "jsonVersion": "1.1",
        "protocol": "json",
        "protocols": ["json"],
        "serviceFullName": "AWS Secrets Manager",
        "serviceId": "Secrets Manager",
        "signatureVersion": "v4",
        "signingName": "secretsmanager",
        "targetPrefix": "secretsmanager",
        "uid": "secretsmanager-2017-10-17",
    },
    "operations": {name: _operation(name) for name in ("GetSecretValue", "BatchGetSecretValue")},
    "shapes": {
        "String": _STRING,
        "Blob": {"type": "blob"},
        "Integer": {"type": "integer"},
        "BatchGetSecretValueRequest": _structure(
            Filters="FilterList",
            MaxResults="Integer",
            NextToken="String",
        ),
        "FilterList": {"type": "list", "member": {"shape": "Filter"}},
        "Filter": _structure(Key="String", Values="FilterValues"),
        "FilterValues": {"type": "list", "member": {"shape": "String"}},
        "BatchGetSecretValueResponse": _structure(
            SecretValues="SecretValues",
            Errors="Errors",
            NextToken="String",
        ),
        "SecretValues": {"type": "list", "member": {"shape": "SecretValueEntry"}},
        "SecretValueEntry": _structure(ARN="String", Name="String", SecretString="String", SecretBinary="Blob"),
        "Errors": {"type": "list", "member": {"shape": "Error"}},
        "Error": _structure(SecretId="String", ErrorCode="String", Message="String"),
        "GetSecretValueRequest": _structure(("SecretId",), SecretId="String"),
        "GetSecretValueResponse": _structure(ARN="String", Name="String", SecretString="String", SecretBinary="Blob"),
    },
}

MODELS: Final = {"ssm": SSM, "secretsmanager": SECRETS_MANAGER}

"""The few messages of Secret Manager's gRPC API that reading needs.

google-cloud-secret-manager has them all, and importing it costs more than all the rest of a cold start. These are
of a pool of their own, so that both may be loaded in one process. Field numbers: ``service.proto`` and
``resources.proto`` of google/cloud/secretmanager/v1, and ``status.proto`` and ``error_details.proto`` of google/rpc,
in https://github.com/googleapis/googleapis. Imported at the first lookup.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE: Final = "google.cloud.secretmanager.v1.SecretManagerService"

_FIELDS: Final[Mapping[str, Mapping[str, tuple[int, str]]]] = {
    "AccessSecretVersionRequest": {"name": (1, "string")},
    "AccessSecretVersionResponse": {"name": (1, "string"), "payload": (2, "SecretPayload")},
    "SecretPayload": {"data": (1, "bytes"), "data_crc32c": (2, "int64")},
    "ListSecretsRequest": {
        "parent": (1, "string"),
        "page_size": (2, "int32"),
        "page_token": (3, "string"),
        "filter": (4, "string"),
    },
    "ListSecretsResponse": {"secrets": (1, "*Secret"), "next_page_token": (2, "string")},
    "Secret": {"name": (1, "string")},
    # google.rpc and google.protobuf, whose names do not matter on the wire.
    "Status": {"code": (1, "int32"), "message": (2, "string"), "details": (3, "*Any")},
    "Any": {"type_url": (1, "string"), "value": (2, "bytes")},
    "RetryInfo": {"retry_delay": (1, "Duration")},
    "Duration": {"seconds": (1, "int64"), "nanos": (2, "int32")},
    "ErrorInfo": {"reason": (1, "string")},
}
"""Number and type of each field; a star before a type: repeated."""


def _file() -> descriptor_pb2.FileDescriptorProto:
    # In the syntax of proto2, every single field tells whether it was there.
    file = descriptor_pb2.FileDescriptorProto(name="secretmanager.proto", package="reading", syntax="proto2")
    kinds = descriptor_pb2.FieldDescriptorProto
    for message, fields in _FIELDS.items():
        described = file.message_type.add(name=message)
        for name, (number, marked) in fields.items():
            repeated, kind = marked.startswith("*"), marked.lstrip("*")
            field = described.field.add(
                name=name, number=number, label=kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            )
            if kind in _FIELDS:
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".reading.{kind}"
            else:
                field.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
    return file


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file())


def message(name: str) -> Any:
    """Give the class of a message."""
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"reading.{name}"))

"""Google Secret Manager's gRPC API in a process of its own, since gRPC's servers do not survive forks.

    python -m tests.rigs.google_grpc PORT [UPSTREAM]

Made of the SDK's own types. Each call is sent on to the REST API on PORT, which is the rig's, with its metadata as
headers. Prints the port that it listens on; ends with its standard input.

With UPSTREAM, the address of another implementation of the gRPC API, what the REST API takes is asked there once more,
octet for octet, and answered with what came of that: it checks tokens, counts and injects faults, and that has the
secrets. They are written by lines of standard input, JSON arrays of a method of :class:`Upstream` and its arguments; each is
answered with a line.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlencode

import grpc
from google.api_core.exceptions import AlreadyExists
from google.cloud import secretmanager_v1 as sdk
from google.cloud.secretmanager_v1.services.secret_manager_service.transports import SecretManagerServiceGrpcTransport

from tests.rigs import FROM_THE_STORE

NOT_PROTOBUF = b"\xff\xffS3cr3t"
SERVICE = "google.cloud.secretmanager.v1.SecretManagerService"
FORWARDED = ("authorization", "x-goog-user-project", "x-goog-request-params", "user-agent")


class Upstream:
    """Another implementation of the API.

    :param address: where it listens, without TLS.
    """

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        transport = SecretManagerServiceGrpcTransport(channel=self._channel)
        self._client = sdk.SecretManagerServiceClient(transport=transport)

    def put(self, parent: str, secret: str, data: str) -> None:
        """Add a version to a secret."""
        with contextlib.suppress(AlreadyExists):
            self._client.create_secret(parent=parent, secret_id=secret, secret={"replication": {"automatic": {}}})
        payload = {"data": base64.b64decode(data)}
        self._client.add_secret_version(parent=f"{parent}/secrets/{secret}", payload=payload)

    def remove(self, parent: str, secret: str) -> None:
        """Delete a secret."""
        self._client.delete_secret(name=f"{parent}/secrets/{secret}")

    def answer(self, context: grpc.ServicerContext, method: str, octets: bytes) -> bytes:
        """Pass a call on, and its answer or error back."""
        try:
            answer: bytes = self._channel.unary_unary(f"/{SERVICE}/{method}")(octets, timeout=30)
            return answer
        except grpc.RpcError as error:
            context.set_trailing_metadata(error.trailing_metadata() or ())
            context.abort(error.code(), error.details())
        raise AssertionError


class Api:
    def __init__(self, port: int, upstream: Upstream | None) -> None:
        self._port = port
        self._upstream = upstream

    def access(self, octets: bytes, context: grpc.ServicerContext) -> bytes:
        request = sdk.AccessSecretVersionRequest.deserialize(octets)
        answer = self._answer(context, f"/v1/{request.name}:access", sdk.AccessSecretVersionResponse)
        return answer if answer is not None else self._asked_upstream(context, "AccessSecretVersion", octets)

    def list(self, octets: bytes, context: grpc.ServicerContext) -> bytes:
        request = sdk.ListSecretsRequest.deserialize(octets)
        query = urlencode({"pageSize": request.page_size, "pageToken": request.page_token, "filter": request.filter})
        answer = self._answer(context, f"/v1/{request.parent}/secrets?{query}", sdk.ListSecretsResponse)
        return answer if answer is not None else self._asked_upstream(context, "ListSecrets", octets)

    def list_versions(self, octets: bytes, context: grpc.ServicerContext) -> bytes:
        request = sdk.ListSecretVersionsRequest.deserialize(octets)
        answer = self._answer(context, f"/v1/{request.parent}/versions", sdk.ListSecretVersionsResponse)
        return answer if answer is not None else self._asked_upstream(context, "ListSecretVersions", octets)

    def create(self, octets: bytes, context: grpc.ServicerContext) -> bytes:
        request = sdk.CreateSecretRequest.deserialize(octets)
        secret = sdk.Secret.to_dict(request.secret, preserving_proto_field_name=False)
        body = {"replication": secret["replication"]} if "replication" in request.secret else {}
        path = f"/v1/{request.parent}/secrets?{urlencode({'secretId': request.secret_id})}"
        answer = self._answer(context, path, sdk.Secret, "POST", json.dumps(body))
        return answer if answer is not None else self._asked_upstream(context, "CreateSecret", octets)

    def add(self, octets: bytes, context: grpc.ServicerContext) -> bytes:
        request = sdk.AddSecretVersionRequest.deserialize(octets)
        body = json.dumps({"payload": json.loads(sdk.SecretPayload.to_json(request.payload))})
        answer = self._answer(context, f"/v1/{request.parent}:addVersion", sdk.SecretVersion, "POST", body)
        return answer if answer is not None else self._asked_upstream(context, "AddSecretVersion", octets)

    def delete(self, octets: bytes, context: grpc.ServicerContext) -> bytes:
        request = sdk.DeleteSecretRequest.deserialize(octets)
        answer = self._answer(context, f"/v1/{request.name}", None, "DELETE")
        return answer if answer is not None else self._asked_upstream(context, "DeleteSecret", octets)

    def _asked_upstream(self, context: grpc.ServicerContext, method: str, octets: bytes) -> bytes:
        assert self._upstream
        return self._upstream.answer(context, method, octets)

    def _answer(
        self, context: grpc.ServicerContext, path: str, kind: Any, method: str = "GET", body: str | None = None
    ) -> bytes | None:
        """Give the REST API's answer; ``None`` where it is a store's own and another one is to be asked."""
        headers = {key: value for key, value in context.invocation_metadata() if key in FORWARDED}
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            octets = answer.read()
        except (http.client.HTTPException, OSError):
            context.abort(grpc.StatusCode.UNAVAILABLE, "the rig gave no answer")
        finally:
            connection.close()
        if self._upstream and answer.getheader(FROM_THE_STORE):
            return None
        try:
            parsed = json.loads(octets)
        except ValueError:
            return NOT_PROTOBUF
        if answer.status == 200:
            return kind.serialize(kind.from_json(octets)) if kind else b""
        error = parsed["error"]
        if error.get("details"):
            context.set_trailing_metadata((("grpc-status-details-bin", _status(error)),))
        context.abort(grpc.StatusCode[error["status"]], error["message"])
        raise AssertionError


def _status(error: dict[str, Any]) -> bytes:
    from google.protobuf import json_format
    from google.rpc import error_details_pb2, status_pb2

    assert error_details_pb2  # json_format knows the types that are loaded
    if isinstance(error["details"], str):
        return error["details"].encode()
    status = status_pb2.Status(code=grpc.StatusCode[error["status"]].value[0], message=error["message"])
    return json_format.ParseDict({"details": error["details"]}, status).SerializeToString()


def main() -> None:
    upstream = Upstream(sys.argv[2]) if sys.argv[2:] else None
    api = Api(int(sys.argv[1]), upstream)
    server = grpc.server(ThreadPoolExecutor(96))
    methods = {
        "AccessSecretVersion": grpc.unary_unary_rpc_method_handler(api.access),
        "ListSecrets": grpc.unary_unary_rpc_method_handler(api.list),
        "ListSecretVersions": grpc.unary_unary_rpc_method_handler(api.list_versions),
        "CreateSecret": grpc.unary_unary_rpc_method_handler(api.create),
        "AddSecretVersion": grpc.unary_unary_rpc_method_handler(api.add),
        "DeleteSecret": grpc.unary_unary_rpc_method_handler(api.delete),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    for line in sys.stdin:
        method, *arguments = json.loads(line)
        getattr(upstream, method)(*arguments)
        print("done", flush=True)
    server.stop(0)


if __name__ == "__main__":
    main()

"""Google Secret Manager's gRPC API in a process of its own, since gRPC's servers do not survive forks.

    python -m tests.rigs.google_grpc PORT

Made of the SDK's own types. Each call is sent on to the REST API on PORT, which is the rig's, with its metadata as
headers. Prints the port that it listens on; ends with its standard input.
"""

from __future__ import annotations

import http.client
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlencode

import grpc
from google.cloud import secretmanager_v1 as sdk

NOT_PROTOBUF = b"\xff\xffS3cr3t"
FORWARDED = ("authorization", "x-goog-user-project", "x-goog-request-params", "user-agent")


class Api:
    def __init__(self, port: int) -> None:
        self._port = port

    def access(self, request: sdk.AccessSecretVersionRequest, context: grpc.ServicerContext) -> bytes:
        return self._answer(context, f"/v1/{request.name}:access", sdk.AccessSecretVersionResponse)

    def list(self, request: sdk.ListSecretsRequest, context: grpc.ServicerContext) -> bytes:
        query = urlencode({"pageSize": request.page_size, "pageToken": request.page_token, "filter": request.filter})
        return self._answer(context, f"/v1/{request.parent}/secrets?{query}", sdk.ListSecretsResponse)

    def _answer(self, context: grpc.ServicerContext, path: str, kind: Any) -> bytes:
        headers = {key: value for key, value in context.invocation_metadata() if key in FORWARDED}
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
        except (http.client.HTTPException, OSError):
            context.abort(grpc.StatusCode.UNAVAILABLE, "the rig gave no answer")
        finally:
            connection.close()
        try:
            parsed = json.loads(body)
        except ValueError:
            return NOT_PROTOBUF
        if answer.status == 200:
            return kind.serialize(kind.from_json(body))
        error = parsed["error"]
        if details := error.get("details"):
            context.set_trailing_metadata((("grpc-status-details-bin", _status(details)),))
        context.abort(grpc.StatusCode[error["status"]], error["message"])
        raise AssertionError


def _status(details: list[dict[str, Any]]) -> bytes:
    from google.protobuf import json_format
    from google.rpc import error_details_pb2, status_pb2

    assert error_details_pb2  # json_format knows the types that are loaded
    return json_format.ParseDict({"details": details}, status_pb2.Status()).SerializeToString()


def main() -> None:
    api = Api(int(sys.argv[1]))
    server = grpc.server(ThreadPoolExecutor(96))
    methods = {
        "AccessSecretVersion": grpc.unary_unary_rpc_method_handler(
            api.access, request_deserializer=sdk.AccessSecretVersionRequest.deserialize
        ),
        "ListSecrets": grpc.unary_unary_rpc_method_handler(
            api.list, request_deserializer=sdk.ListSecretsRequest.deserialize
        ),
    }
    service = "google.cloud.secretmanager.v1.SecretManagerService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(0)


if __name__ == "__main__":
    main()

"""Both AWS stores on moto's server, behind a proxy that counts and injects faults."""

from __future__ import annotations

import contextlib
import functools
import json
from typing import Any, ClassVar

import botocore.session
from moto.server import ThreadedMotoServer

from airflow_providers_secrets.backends.aws_secrets_manager import SecretsManagerBackend
from airflow_providers_secrets.backends.aws_ssm import SystemsManagerParameterStoreBackend
from airflow_providers_secrets.testing.proxy import Proxy, Reply, Request
from tests.rigs import PAGE, Answer, Rig, answer_to, http_faults

CREDENTIALS = {"aws_access_key_id": "AKIATESTING", "aws_secret_access_key": "test-secret-key"}
REGION = "eu-west-1"


@functools.cache
def moto() -> ThreadedMotoServer:
    """The session's one moto server; its stores are apart by service."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    return server


def moto_url() -> str:
    """The server's address, past any proxy."""
    return "http://{}:{}".format(*moto().get_host_and_port())


def aws_client(service: str) -> Any:
    """A plain botocore client that speaks to moto past any proxy."""
    session = botocore.session.Session()
    return session.create_client(service, region_name=REGION, endpoint_url=moto_url(), **CREDENTIALS)


def aws_error(code: str, status: int = 400, **headers: str) -> Reply:
    """An error as the AWS JSON protocol spells it, with a message that must not be passed on."""
    body = json.dumps({"__type": f"com.amazonaws.example#{code}", "message": "S3cr3t-from-the-server"})
    return Reply(status, body.encode(), {"Content-Type": "application/x-amz-json-1.1", **headers})


class AwsRig(Rig):
    service: ClassVar[str]
    service_id: ClassVar[str]
    """The service's part of ``AWS_ENDPOINT_URL_<SERVICE>``."""
    default_prefixes: ClassVar[dict[str, str]]
    name_field: ClassVar[str]
    listed_in: ClassVar[str]
    listed_text: ClassVar[str]
    listed: ClassVar[dict[str, str]] = {}
    ambient = ("AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    extra = "aws"
    sdk = "botocore"

    def __init__(self) -> None:
        self.proxy = Proxy(moto().get_host_and_port())
        self.client = aws_client(self.service)
        self.elsewhere = Proxy()
        self.elsewhere.reply = lambda _: Reply(200, b"{}")  # type: ignore[method-assign]

    def options(self) -> dict[str, Any]:
        return {"endpoint_url": self.proxy.url, "region_name": REGION, **CREDENTIALS}

    @property
    def calls(self) -> list[str]:
        return [PAGE if self.is_page(request) else self.asked(request) for request in self.proxy.requests]

    def asked(self, request: Request) -> str:
        body = json.loads(request.body)
        name: str = body.get(self.name_field) or body.get("Name") or ""  # of what is no read, which has other fields
        return name

    @staticmethod
    def is_page(request: Request) -> bool:
        return request.headers["X-Amz-Target"].endswith((".GetParametersByPath", ".BatchGetSecretValue"))

    def answer(self, name: str, text: str) -> dict[str, Any]:
        raise NotImplementedError

    def faults(self) -> dict[str, Answer]:
        def found(request: Request, **how: Any) -> Reply:
            if self.is_page(request):
                answer = {"Unknown": "S3cr3t-value" * 10}
            else:
                answer = self.answer(how.pop("name", self.asked(request)), "S3cr3t-value")
            body = json.dumps(answer).encode()
            return Reply(200, body, {"Content-Type": "application/x-amz-json-1.1"}, **how)

        common = http_faults(
            denied=aws_error("AccessDeniedException"),
            throttled=aws_error("ThrottlingException"),
            server_error=aws_error("InternalServerError", 500),
            found=found,
            wrong_name=lambda request: found(request, name="another/name"),
            content_type="application/x-amz-json-1.1",
        )
        return {
            **common,
            "redirect": Reply(307, headers={"Location": f"{self.elsewhere.url}/stolen"}),
            "throttled-for-an-hour": aws_error("ThrottlingException", **{"Retry-After": "3600"}),
        }

    def answering(self, answer: Answer, *, listings: bool = False) -> contextlib.AbstractContextManager[None]:
        def reply(request: Request) -> Reply | None:
            return None if listings and not self.is_page(request) else answer_to(request, answer)

        return self.proxy.fault(reply)

    @property
    def requests(self) -> list[Request]:
        return self.proxy.requests

    def page(self, names: list[str], more: str | None) -> Reply:
        listed = [{**self.listed, self.listed_text: "listed", "Name": name} for name in names]
        page = {self.listed_in: listed, **({"NextToken": more} if more else {})}
        return Reply(200, json.dumps(page).encode(), {"Content-Type": "application/x-amz-json-1.1"})

    def stop(self) -> None:
        self.proxy.stop()
        self.elsewhere.stop()


class SsmRig(AwsRig):
    name = "ssm-moto"
    backend_class = SystemsManagerParameterStoreBackend
    class_path = "airflow_providers_secrets.backends.aws_ssm.SystemsManagerParameterStoreBackend"
    service = "ssm"
    service_id = "SSM"
    name_field = "Name"
    listed_in, listed_text, listed = "Parameters", "Value", {"Type": "SecureString"}

    def path(self, kind: str, secret_id: str, base: str | None = None, team: str | None = None) -> str:
        base = f"/airflow/{kind}" if base is None else base.rstrip("/")
        path = f"{base}/{team}--{secret_id}" if team else f"{base}/{secret_id}"
        return path if path.startswith("/") else f"/{path}"

    def put(self, path: str, text: str) -> None:
        self.client.put_parameter(Name=path, Value=text, Type="SecureString", Overwrite=True)

    def remove(self, path: str) -> None:
        self.client.delete_parameter(Name=path)

    def answer(self, name: str, text: str) -> dict[str, Any]:
        return {"Parameter": {"Name": name, "Value": text, "Type": "SecureString"}}


class SecretsManagerRig(AwsRig):
    name = "secrets-manager-moto"
    backend_class = SecretsManagerBackend
    class_path = "airflow_providers_secrets.backends.aws_secrets_manager.SecretsManagerBackend"
    service = "secretsmanager"
    service_id = "SECRETS_MANAGER"
    name_field = "SecretId"
    listed_in, listed_text = "SecretValues", "SecretString"

    def path(self, kind: str, secret_id: str, base: str | None = None, team: str | None = None) -> str:
        base = f"airflow/{kind}" if base is None else base.rstrip("/")
        if not base:
            return secret_id
        return f"{base}/{team}--{secret_id}" if team else f"{base}/{secret_id}"

    def put(self, path: str, text: str) -> None:
        try:
            self.client.create_secret(Name=path, SecretString=text)
        except self.client.exceptions.ResourceExistsException:
            self.client.put_secret_value(SecretId=path, SecretString=text)

    def remove(self, path: str) -> None:
        self.client.delete_secret(SecretId=path, ForceDeleteWithoutRecovery=True)

    def answer(self, name: str, text: str) -> dict[str, Any]:
        return {"Name": name, "SecretString": text}

"""The client that a process makes before it forks, for its children."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_providers_secrets.testing.processes import in_a_process
from airflow_providers_secrets.testing.proxy import Proxy, Request
from tests.rigs.aws import CREDENTIALS, REGION, AwsRig

pytestmark = pytest.mark.each_rig_in_ci

ROLE = "arn:aws:iam::123456789012:role/airflow"

WATCH = """
from airflow_providers_secrets.stores.aws import session
made = []
connect = session.connect
def noted(*arguments):
    made.append(os.getpid() == parent)
    return connect(*arguments)
session.connect = noted
parent = os.getpid()
def work():
    print("read", backend.get_variable("inherited"), made)
"""
"""Notes by whom clients are made: by the parent, or by a child."""


def signer(request: Request) -> tuple[str, str]:
    """Return the key and the region that a request was signed for (AWS Signature Version 4)."""
    key, _, region, *_ = request.headers["Authorization"].split("Credential=")[1].split("/")
    return key, region


def run(rig: AwsRig, code: str, **options: Any) -> tuple[list[str], list[tuple[str, str]]]:
    """Return what *code* printed of its reads, and whom the requests that it led to were signed by."""
    rig.put(rig.path("variables", "inherited"), "x")
    before = len(rig.proxy.requests)
    printed = in_a_process(rig, WATCH + code, **options)
    return (
        [line.removeprefix("read ") for line in printed if line.startswith("read ")],
        [signer(request) for request in rig.proxy.requests[before:]],
    )


ENVIRONMENT = {"aws_access_key_id": None, "aws_secret_access_key": None, "region_name": None}
"""Options by which keys and region are those of environment and files."""
OURS = (CREDENTIALS["aws_access_key_id"], REGION)


@pytest.mark.parametrize("options", [{}, ENVIRONMENT], ids=["keys in options", "keys in the environment"])
def test_children_take_it_and_the_parent_does_not(
    aws: AwsRig, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (*CREDENTIALS.items(), ("aws_default_region", REGION)):
        monkeypatch.setenv(name.upper(), value)
    printed, signed = run(aws, "fork(work)\nwork()\nfork(work)\n", **options)
    assert printed == ["x [True]", "x [True, True]", "x [True, True]"]
    assert signed == [OURS] * 3  # each asks once; what was rehearsed reached nobody


def test_children_find_what_a_first_call_makes(aws: AwsRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The endpoint, by the service's rules, and what looks for credentials: half of a child's first lookup."""
    for name, value in (*CREDENTIALS.items(), ("aws_default_region", REGION)):
        monkeypatch.setenv(name.upper(), value)
    code = """
from botocore.endpoint_provider import RuleSet
from airflow_providers_secrets.stores.aws.transport import BoundedSession
def watched(owner, name):
    really = getattr(owner, name)
    setattr(owner, name, lambda *given: made.append((name, os.getpid() == parent)) or really(*given))
watched(RuleSet, "evaluate")
watched(BoundedSession, "_create_credential_resolver")
fork(lambda: print("read", backend.get_variable("inherited"), sorted(made[1:])))
"""
    printed, _ = run(aws, code, **ENVIRONMENT)
    assert printed == ["x [('_create_credential_resolver', True), ('evaluate', True)]"]


def test_a_child_that_forks_leaves_its_client_to_itself(aws: AwsRig) -> None:
    code = "def twice():\n    work()\n    fork(work)\nfork(twice)\n"
    printed, signed = run(aws, code)
    assert printed == ["x [True]", "x [True, False]"]
    assert signed == [OURS] * 2


CHANGES = {
    "keys": ("os.environ['AWS_ACCESS_KEY_ID'] = 'AKIAOTHER'", ("AKIAOTHER", REGION)),
    "region": ("os.environ['AWS_DEFAULT_REGION'] = 'us-west-2'", (OURS[0], "us-west-2")),
    "proxy": ("os.environ['no_proxy'] = '127.0.0.1'", OURS),
    "certificates": ("os.environ['REQUESTS_CA_BUNDLE'] = '/of/another/authority.pem'", OURS),
    "file": (
        "del os.environ['AWS_DEFAULT_REGION']; open(os.environ['AWS_CONFIG_FILE'], 'w').write('[default]\\nregion=sa-east-1')",
        (OURS[0], "sa-east-1"),
    ),
}


@pytest.mark.parametrize(
    "change", [pytest.param(one, marks=() if one == "keys" else pytest.mark.long) for one in CHANGES]
)
def test_where_environment_or_files_have_changed_a_child_makes_its_own(
    aws: AwsRig, change: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in (*CREDENTIALS.items(), ("aws_default_region", REGION), ("aws_config_file", tmp_path / "config")):
        monkeypatch.setenv(name.upper(), str(value))
    code, expected = CHANGES[change]
    printed, signed = run(aws, f"def changed():\n    {code}\n    work()\nfork(changed)\nfork(work)\n", **ENVIRONMENT)
    # The changed file is there for the second child, too.
    assert [line.split(" ", 1)[1] for line in printed] == [
        "[True, False]",
        "[True, False]" if change == "file" else "[True]",
    ]
    assert signed[0] == expected


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY"])
def test_a_child_asks_by_the_proxy_of_its_own_environment(
    aws: AwsRig, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which its parent, and whatever that made, knew nothing of."""
    for name in ("http_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    code = f"def behind():\n    os.environ[{variable!r}] = {aws.proxy.url!r}\n    work()\nfork(behind)\n"
    printed, _ = run(aws, code, endpoint_url="http://store.invalid")
    assert printed == ["x [True, False]"]
    assert aws.proxy.requests[-1].path == "http://store.invalid/"


def test_a_file_that_changes_alone_is_seen(aws: AwsRig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[default]\nregion=eu-west-3")
    for name, value in (*CREDENTIALS.items(), ("aws_config_file", tmp_path / "config")):
        monkeypatch.setenv(name.upper(), str(value))
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    code = "fork(work)\nopen(os.environ['AWS_CONFIG_FILE'], 'w').write('[default]\\nregion=sa-east-1')\nfork(work)\n"
    printed, signed = run(aws, code, **ENVIRONMENT)
    assert [line.split(" ", 1)[1] for line in printed] == ["[True]", "[True, False]"]
    assert signed == [(OURS[0], "eu-west-3"), (OURS[0], "sa-east-1")]


def test_a_child_says_of_credentials_what_its_parent_does(aws: AwsRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are looked for as its client is taken, which was made without."""
    for name in CREDENTIALS:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://no address:x/")
    code = (
        "def ask():\n"
        "    try:\n"
        "        work()\n"
        "    except Exception as error:\n"
        "        print('read', type(error).__name__)\n"
        "fork(ask)\n"
        "ask()\n"
    )
    printed, _ = run(aws, code, **{**ENVIRONMENT, "region_name": REGION})
    assert printed == ["StoreMisconfigured"] * 2


def test_a_role_is_assumed_by_the_child(aws: AwsRig, sts: Proxy) -> None:
    options = {"role_arn": ROLE, "service_config": {"sts": {"endpoint_url": sts.url}}}
    printed, signed = run(aws, "fork(work)\nfork(work)\n", **options)
    assert printed == ["x [True]"] * 2
    assert [signer(request)[0] for request in sts.requests] == [OURS[0]] * 2
    assert len(signed) == 2
    assert all(key.startswith("ASIA") for key, _ in signed)


def test_it_holds_no_credentials_of_the_parent_s_environment(
    aws: AwsRig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A child that has none of its own is told so."""
    for name, value in (*CREDENTIALS.items(), ("aws_default_region", REGION)):
        monkeypatch.setenv(name.upper(), value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for file in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(file, str(tmp_path / "none"))
    code = """
def without():
    del os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    try:
        work()
    except Exception as error:
        print("read", error)
fork(without)
"""
    printed, signed = run(aws, code, **ENVIRONMENT)
    assert len(printed) == 1
    assert "NoCredentialsError" in printed[0]
    assert signed == []

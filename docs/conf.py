"""Sphinx configuration. The pages are plain Markdown: what is generated stands in them (``docs/tables.py``)."""

from __future__ import annotations

from airflow_providers_secrets import __version__

project = "airflow-providers-secrets"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_copybutton"]
html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_logo = "_static/logo.svg"
smartquotes = False  # messages and options are searched for as they are
html_show_sourcelink = False
html_show_copyright = False
exclude_patterns = ["_build"]
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(airflow|collections|typing|re|enum|abc|threading|logging)\..*"),
    ("py:class", r".*"),
]
myst_heading_anchors = 3
autodoc_typehints = "none"
autodoc_member_order = "bysource"
# What a reader copies from a transcript is the commands.
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True
# SDK-using private modules are no API; nothing here needs an SDK to be installed.

"""Google Cloud IAM: bindings of a project, with conditions on the names of secrets."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any, Final

from airflow_providers_secrets.cli.policies.base import Policy, Scope, Wanted

if TYPE_CHECKING:
    from airflow_providers_secrets.backends.mixin import SecretLookupMixin


CUSTOM_ROLES: Final = {
    "list": ("airflowSecretsLister", "secretmanager.secrets.list"),
    "create": ("airflowSecretsCreator", "secretmanager.secrets.create"),
    "delete": ("airflowSecretsDeleter", "secretmanager.secrets.delete"),
}
"""Custom roles with one permission each, since Google's own roles contain more than is needed."""


def secret_manager_policy(backend: SecretLookupMixin, wanted: Wanted, scope: Scope) -> Policy:
    """Return the policy for Google Secret Manager."""
    project = backend.options["project_id"] or "<project-id>"
    location = backend.options["location"]
    inside = f"projects/{wanted.project_number}/" + (f"locations/{location}/" if location else "") + "secrets/"
    expression = " || ".join(f'resource.name.startsWith("{inside}{start}")' for start in scope.starts)
    condition = {"title": wanted.name, "expression": expression}
    suffix = "" if wanted.member is None else str(wanted.member)
    role_ids = {act: f"{role_id}{suffix}" for act, (role_id, _) in CUSTOM_ROLES.items()}
    notes = ["resource.name holds the project's number, not its id: gcloud projects describe shows it."]
    scoped = ["roles/secretmanager.secretAccessor"]
    unscoped: list[str] = []
    custom: list[str] = []
    if "write" in wanted.acts:
        scoped.append("roles/secretmanager.secretVersionAdder")
        custom.append("create")
        notes.append("Creating a secret is judged on the project: no condition on a prefix can hold there.")
    if "delete" in wanted.acts:
        custom.append("delete")
    if scope.listed:
        custom.append("list")
        notes.append("Listing is judged on the project: it shows the names of all its secrets.")
    for act in custom:
        (scoped if act == "delete" else unscoped).append(f"projects/{project}/roles/{role_ids[act]}")
    bindings: list[dict[str, Any]] = [
        *({"role": role, "members": [wanted.principal], "condition": condition} for role in scoped),
        *({"role": role, "members": [wanted.principal]} for role in unscoped),
    ]
    commands = [
        f"gcloud iam roles create {role_ids[act]} --project={project} --permissions={CUSTOM_ROLES[act][1]}"
        for act in custom
    ]
    blocks = [
        f'resource "google_project_iam_custom_role" "{role_ids[act]}" {{\n  project     = "{project}"\n'
        f'  role_id     = "{role_ids[act]}"\n  title       = "{role_ids[act]}"\n'
        f'  permissions = ["{CUSTOM_ROLES[act][1]}"]\n}}\n'
        for act in custom
    ]
    for one in bindings:
        role = str(one["role"])
        given = f"expression={expression},title={wanted.name}" if "condition" in one else "None"
        commands.append(
            f"gcloud projects add-iam-policy-binding {project} --member={shlex.quote(wanted.principal)} "
            f"--role={role} --condition='{given}'"
        )
        name = re.sub(r"\W", "_", re.split(r"[./]", role)[-1]).lower()
        block = f'resource "google_project_iam_member" "airflow_{name}{suffix}" {{\n  project = "{project}"\n'
        block += f'  role    = "{role}"\n  member  = "{wanted.principal}"\n'
        if "condition" in one:
            block += (
                f'  condition {{\n    title      = "{wanted.name}"\n    expression = {json.dumps(expression)}\n  }}\n'
            )
        blocks.append(f"{block}}}\n")
    text = json.dumps({"bindings": bindings, "version": 3}, indent=2)
    return Policy("json", text, "\n".join(commands), "\n".join(blocks), tuple(notes))

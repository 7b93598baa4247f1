"""Print the least rights that this configuration needs, in the store's own form or as Terraform. Contacts no store.

It allows reading under the prefixes, and listing only if preload needs it; --allow adds what an operator needs.
For a chain, one policy for each member.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from typing import TYPE_CHECKING, Final

from airflow_providers_secrets.cli import output
from airflow_providers_secrets.cli.arguments import add_backend, add_output
from airflow_providers_secrets.cli.exits import OK
from airflow_providers_secrets.errors import ConfigurationError
from airflow_providers_secrets.lookup.outcomes import GRANTED

if TYPE_CHECKING:
    from airflow_providers_secrets.backends._members import Member
    from airflow_providers_secrets.cli.policies import Policy, Wanted

NAME: Final = "policy"
HELP: Final = "print the least policy for this configuration"
EXAMPLE: Final = "airflow-secrets policy --account 123456789012 --terraform"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``airflow-secrets policy``."""
    parser.add_argument(
        "--allow",
        choices=GRANTED,
        action="append",
        default=[],
        help="allow this as well; repeatable",
    )
    parser.add_argument("--terraform", action="store_true", help="print Terraform")
    parser.add_argument("--commands", action="store_true", help="print the shell commands that put it in force")
    parser.add_argument("--account", metavar="ID", type=_account, help="AWS: the account; all of them unless given")
    parser.add_argument("--region", metavar="NAME", help="AWS: the region, where the options do not say it")
    parser.add_argument("--partition", metavar="NAME", help="AWS: aws, aws-cn, aws-us-gov")
    parser.add_argument("--kms-key", metavar="ARN", help="AWS: the customer's key that encrypts the secrets")
    parser.add_argument("--project-number", metavar="N", help="Google: the project's number")
    parser.add_argument(
        "--principal",
        metavar="WHO",
        help="AWS: the role's name or ARN; Google: the member; Azure: the principal's object id; Kubernetes: the "
        "service account, or system:serviceaccount:NAMESPACE:NAME",
    )
    parser.add_argument("--vault-id", metavar="ID", help="Azure: the vault's resource id")
    add_backend(parser)
    add_output(parser)


def _account(text: str) -> str:
    if not re.fullmatch("[0-9]{12}", text):
        raise argparse.ArgumentTypeError("must be the 12 digits of an account")
    return text


def run(args: argparse.Namespace) -> int:
    """Print the policy; notes about what it cannot express go to standard error."""
    from airflow_providers_secrets.cli import configuration, policies

    configured = configuration.configured(args)
    named = ("account", "region", "partition", "kms_key", "project_number", "principal", "vault_id")
    given = {name: value for name in named if (value := getattr(args, name))}
    wanted = policies.Wanted(acts=tuple(args.allow), **given)
    members = configuration.members_of(configured)
    if not members:
        policy = policies.policy_for(configuration.ours(configured), _of_member(wanted, configured.member))
        if args.output in ("json", "yaml"):
            output.show_record(dataclasses.asdict(policy), args.output)
        else:
            _show(policy, args)
        return OK
    found: dict[str, Policy] = {}
    without: dict[str, str] = {}
    for member in members:
        if not member.is_ours:
            without[member.title] = "it is not one of this package's stores"
            continue
        try:
            found[member.title] = policies.policy_for(member.backend, _of_member(wanted, member))
        except policies.NothingToAllow:
            without[member.title] = "it is never asked for anything"
        except ConfigurationError as error:
            raise ConfigurationError(f"{member.title}: {error} Print the others' policies by --member.") from None
    if args.output in ("json", "yaml"):
        output.show_record({title: dataclasses.asdict(policy) for title, policy in found.items()}, args.output)
        return OK
    for member in members:
        if member.title in found:
            print(f"# {member.title}")
            _show(found[member.title], args)
        else:
            output.say(f"# {member.title}: no policy; {without[member.title]}")
    return OK


def _of_member(wanted: Wanted, member: Member | None) -> Wanted:
    """Narrow *wanted* to the kinds that a chain asks *member* for, and number what the policy creates."""
    if member is None:
        return wanted
    kinds = [kind for kind in wanted.kinds if member.off_for(kind) is None]
    return dataclasses.replace(wanted, kinds=kinds, member=member.position)


def _show(policy: Policy, args: argparse.Namespace) -> None:
    shown = [policy.terraform] if args.terraform else [] if args.commands else [policy.text]
    if args.commands:
        shown.append(policy.commands)
    print("\n".join(one.rstrip("\n") for one in shown))
    for note in policy.notes:
        output.say(f"# {note}")

"""The least-privilege policy in docs/drivers/aws.md is what the driver calls: no less, no more."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Final

import botocore.session

ROOT: Final = Path(__file__).parents[2]
# Asked for by what other calls do: tags at launch.
IMPLIED: Final = {"CreateTags"}


def called() -> set[str]:
    """Operations of EC2 and SSM that the driver's sources name."""
    session = botocore.session.get_session()
    known: set[str] = set()
    for service in ("ec2", "ssm"):
        known |= set(session.get_service_model(service).operation_names)
    words = set()
    for source in (ROOT / "drivers/aws").glob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                words.add(node.value)
    return known & words


def allowed() -> set[str]:
    """Actions of the policy, without the service's name."""
    text = (ROOT / "docs/drivers/aws.md").read_text()
    start = text.index("    {\n", text.index("## Which permissions it needs"))
    policy, _ = json.JSONDecoder().raw_decode(text[start:].strip())
    found = set()
    for statement in policy["Statement"]:
        actions = statement["Action"]
        found |= {actions} if isinstance(actions, str) else set(actions)
    return {action.partition(":")[2] for action in found}


def test_the_policy_is_what_the_aws_driver_calls() -> None:
    assert sorted(called() - allowed()) == [], "the driver would be refused"
    assert sorted(allowed() - called() - IMPLIED) == [], "never called"

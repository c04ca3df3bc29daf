"""The manifests of docs/deploy/kubernetes, rendered as an operator renders them."""

import json
import os
import re
import shutil
import subprocess
from base64 import b64decode
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from coordinator.runtime.addresses import Address, parse_address

EXAMPLE: Final = Path(__file__).parents[2] / "docs" / "deploy" / "kubernetes" / "examples" / "cluster"
PROCESSES: Final = "write-coordinator"
SERVERS: Final = "write-servers"
"""The two namespaces of the example."""
_KUBECTL: Final = (1, 27)
"""The oldest that renders it; Debian 12 has 1.20."""


@cache
def rendered() -> tuple[dict[str, Any], ...]:
    """All objects of the example. Skips the test where no kubectl is installed that could render it."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    version = json.loads(_run("kubectl", "version", "--client", "--output=json"))["clientVersion"]
    if (int(version["major"]), int(re.sub(r"\D", "", version["minor"]))) < _KUBECTL:
        pytest.skip(f"kubectl is too old: {version['gitVersion']}")
    return tuple(yaml.safe_load_all(_run("kubectl", "kustomize", str(EXAMPLE))))


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"HOME": "/"}).stdout


def of_kind(kind: str, namespace: str = PROCESSES) -> dict[str, dict[str, Any]]:
    """By their names."""
    return {
        each["metadata"]["name"]: each
        for each in rendered()
        if each["kind"] == kind and each["metadata"].get("namespace") == namespace
    }


def pod_of(name: str) -> dict[str, Any]:
    """What a process, or the migration, runs in."""
    found: dict[str, Any] = (of_kind("Deployment") | of_kind("Job"))[name]["spec"]["template"]["spec"]
    return found


def values_of(secret: str, namespace: str = PROCESSES) -> dict[str, str]:
    """What is in a secret. The name of most ends with a hash."""
    [one] = [
        each["data"]
        for name, each in of_kind("Secret", namespace).items()
        if name == secret or re.fullmatch(rf"{secret}-[a-z0-9]{{10}}", name)
    ]
    return {key: b64decode(value).decode() for key, value in one.items()}


def addresses_of(name: str) -> dict[str, Address]:
    """The settings of a process that are addresses."""
    return {key: parse_address(value) for key, value in values_of(name).items() if key.endswith("_URL")}

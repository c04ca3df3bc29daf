"""The images that compose.yaml and the Dockerfile name: pulled, or else built from Debian's packages."""

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from coordinator.service.errors import ConfigurationError
from tests.engine.debian import Commands, make_root
from tests.support.compose_file import read_compose_file

ROOT: Final = Path(__file__).parents[2]
_STAND_INS: Final = Path(__file__).parent / "stand_ins"
_BASE: Final = "write-coordinator-debian:trixie"
_LABEL: Final = "write-coordinator.stands-in"
_PULL_TIMEOUT_S: Final = 600.0
_OF_PIP: Final = ("index-url", "extra-index-url", "trusted-host")
"""What of pip's settings says how this machine reaches its index."""


def wanted_images() -> list[str]:
    """Those of compose.yaml that are not ours, and what ours is built on; none of a profile that tests do not start."""
    services = read_compose_file()["services"].values()
    named = {service["image"] for service in services if "observability" not in service.get("profiles", ())}
    bases = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    return sorted(image for image in {*named, *bases} if not image.startswith("write-coordinator:"))


def provide_images(environment: Mapping[str, str], folder: Path, commands: Commands) -> list[str]:
    """Return when all are there, with those that only stand in, and say so. Raises ConfigurationError."""
    there = {image for image in wanted_images() if _label(environment, image) == ""}
    absent = [image for image in wanted_images() if image not in there]
    with ThreadPoolExecutor(max(1, len(absent))) as threads:
        pulled = dict(zip(absent, threads.map(lambda image: _pull(environment, image), absent), strict=True))
    refused = {image: why for image, why in pulled.items() if why}
    for image, why in refused.items():
        commands.say(f"{image} cannot be pulled, and a stand-in from Debian's packages takes its place: {why}")
    if refused:
        _build_stand_ins(list(refused), environment, folder, commands)
    return list(refused)


def _pull(environment: Mapping[str, str], image: str) -> str:
    """Why not, in one line; empty if it is there now."""
    try:
        done = subprocess.run(
            ["docker", "pull", "--quiet", image],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_PULL_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {_PULL_TIMEOUT_S:.0f} s"
    said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return "" if done.returncode == 0 else said[-1]


def _label(environment: Mapping[str, str], image: str) -> str | None:
    """None: there is no such image. Empty: it is no stand-in."""
    done = subprocess.run(
        ["docker", "image", "inspect", "--format", f'{{{{index .Config.Labels "{_LABEL}"}}}}', image],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else None


def _build_stand_ins(images: list[str], environment: Mapping[str, str], folder: Path, commands: Commands) -> None:
    base = folder / "root"
    make_root(base, commands)
    if _label(environment, _BASE) is None:
        tar = ["tar", "--create", "--one-file-system", "--directory", str(base), "."]
        archive = subprocess.Popen(tar, stdout=subprocess.PIPE)
        subprocess.run(["docker", "import", "-", _BASE], stdin=archive.stdout, env=environment, check=True)
        if archive.wait() != 0:
            raise ConfigurationError(f"tar cannot read {base}")
    with TemporaryDirectory() as context:
        shutil.copytree(_STAND_INS, context, dirs_exist_ok=True)
        (Path(context) / "pip.conf").write_text(_pip_settings())
        (Path(context) / "npmrc").write_text(_npm_settings())
        for image in images:
            target = image.partition(":")[0]
            arguments = {"BASE": _BASE, "SECANTUS": _pinned("secantusdb")}
            commands.run(
                [
                    *("docker", "build", "--progress", "plain", "--target", target, "--tag", image),
                    *("--label", f"{_LABEL}={image}"),
                    *(part for name, value in arguments.items() for part in ("--build-arg", f"{name}={value}")),
                    context,
                ],
                environment,
            )
            commands.say(f"built a stand-in for {image}")


def _pinned(name: str) -> str:
    """A package with the version that the lock has, as pip takes it."""
    [line] = re.findall(rf"^({name}==\S+)", (ROOT / "requirements-dev.lock").read_text(), re.MULTILINE)
    return str(line)


def _pip_settings() -> str:
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    found = dict(re.findall(r"^\S+?\.([a-z-]+)='(http.*|[^/]*)'$", listed.stdout, re.MULTILINE))
    chosen = [f"{name} = {value}" for name, value in found.items() if name in _OF_PIP]
    # Where Debian keeps what it trusts; pip's own list has no authority of a proxy.
    return "\n".join(["[global]", "cert = /etc/ssl/certs/ca-certificates.crt", "timeout = 180", *chosen, ""])


def _npm_settings() -> str:
    if shutil.which("npm") is None:
        return ""
    asked = subprocess.run(["npm", "config", "get", "registry"], capture_output=True, text=True, check=True)
    return f"registry={asked.stdout.strip()}\n"

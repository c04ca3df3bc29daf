"""`coordinator dev --clean`: it removes the data of earlier runs."""

import contextlib
from pathlib import Path

from coordinator.dev.plan import kept_names
from coordinator.dev.servers.addresses import COMPOSE_FILE, Wanted
from coordinator.dev.settings import load_settings
from coordinator.dev.workspace import Workspace
from coordinator.registry import registry
from coordinator.service.errors import ConfigurationError

# ruff: noqa: PLC0415  # a run without servers needs none of their drivers, and neither does its end


def clean(directory: Path) -> None:
    """Remove the data of earlier runs. Raises ConfigurationError while one is under way."""
    kept: frozenset[str] = frozenset()
    with contextlib.suppress(ConfigurationError):  # without its application a run's directory may be cleaned too
        kept = kept_names(registry())
    workspace = Workspace(directory, kept)
    if workspace.is_new:
        return
    with workspace.locked():
        if workspace.docker_log.exists():
            _remove_containers(workspace)
        if workspace.servers.exists():
            from coordinator.dev.servers.server_set import remove_data

            remove_data(workspace.servers)
        workspace.remove()


def _remove_containers(workspace: Workspace) -> None:
    from coordinator.dev import docker

    if docker.engine_answers():
        settings = load_settings()
        containers = docker.DockerServers(
            COMPOSE_FILE, settings.docker_project, Wanted(databases={}), settings.server_ports(), workspace.docker_log
        )
        containers.remove()

"""`python -m tests.current RELEASE [COMMAND]`: exit status of the command, or 2 where it cannot be run."""

import os
import sys

import click

from coordinator.service.errors import ConfigurationError
from tests.current.chroot import Chroot, Release, cache_directory

RELEASES = {
    release.name: release
    for release in (
        Release(
            "trixie",
            ("rabbitmq-server", "postgresql", "mariadb-server", "redis-server", "wrk"),
            "python3",
            ("python3-venv",),
        ),
        # Its own Python is newer than what the stand-in for MongoDB has wheels for.
        Release(
            "sid",
            ("rabbitmq-server", "postgresql", "mysql-server", "redis-server"),
            "python3.13",
            ("python3.13-venv",),
        ),
    )
}


@click.command()
@click.argument("release", type=click.Choice(sorted(RELEASES)))
@click.argument("command", default="make test")
def main(release: str, command: str) -> None:
    """Run COMMAND in a copy of this checkout on the current servers and Python of a RELEASE of Debian."""
    chroot = Chroot(RELEASES[release], cache_directory(os.environ))
    try:
        sys.exit(chroot.run(command))
    except ConfigurationError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


main()

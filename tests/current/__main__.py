"""`python -m tests.current RELEASE [COMMAND]`: exit status of the command, or 2 where it cannot be run.

On a machine that lets nobody make a chroot, WITHOUT_CHROOT=allow makes it 0.
"""

import os
import sys
from typing import NoReturn

import click

from coordinator.service.errors import ConfigurationError
from tests.current.chroot import Chroot, Release, cache_directory
from tests.support.machine import NotPossibleHere

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
    except NotPossibleHere as error:
        if os.environ.get("WITHOUT_CHROOT") == "allow":
            print(f"skipped, as WITHOUT_CHROOT=allow says, since no chroot can be made: {error}")
            sys.exit(0)
        _fail(f"{error}; set WITHOUT_CHROOT=allow where that is to be no failure")
    except ConfigurationError as error:
        _fail(str(error))


def _fail(problem: str) -> NoReturn:
    print(f"error: {problem}", file=sys.stderr)
    sys.exit(2)


main()

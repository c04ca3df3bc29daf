"""`python -m tests.faults.mutants`: plant each bug in a copy of the tree, run chaos there, and see that it says so.

Each run has few faults, of the kinds that must show the bug, by a fixed seed. What passes there unseen, `make chaos`
would not see either.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from time import monotonic

import click

from tests.faults.catalogue import MUTANTS, ChaosMutant
from tests.faults.plan import name_of

TREE = Path(__file__).parents[2]
COPIED = ("coordinator", "gateways", "shared", "tests", "pyproject.toml")
PATIENCE_S = 5
CLUSTERED_PATIENCE_S = 30
"""A cluster that was struck may need so long: what is late must not pass for lost."""
RUN_S_MAX = 300
"""A bound for a machine that is busy; a run takes less than a minute."""
CLUSTERED_RUN_S_MAX = 600
"""The same where there are clusters, which take most of a minute to start."""
STOP_S = 60
VIOLATIONS = "\nVIOLATIONS: "
"""What chaos says before it lists them."""


def planted(mutant: ChaosMutant, directory: Path) -> None:
    """Make a copy of the tree in a directory, with the bug in it. Raises LookupError where the code has changed."""
    for name in COPIED:
        if (TREE / name).is_dir():
            shutil.copytree(TREE / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(TREE / name, directory / name)
    for edit in mutant.edits:
        edit.plant(directory)


def caught(mutant: ChaosMutant, directory: Path) -> tuple[list[str] | None, str]:
    """The violations in which chaos names the bug of this copy, and all that it said.

    None for them: it has judged nothing, so the bug is neither caught nor does it survive.
    """
    kinds = [argument for kind in mutant.kinds for argument in ("--only", name_of(kind))]
    kinds += ["--clusters"] if mutant.clusters else []
    lane = [] if mutant.lane is None else ["--lane", mutant.lane]
    run = subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.faults", "--faults", str(mutant.faults), "--seed", str(mutant.seed)),
            *(
                "--patience",
                str(CLUSTERED_PATIENCE_S if mutant.clusters else PATIENCE_S),
                "--transport",
                mutant.transport,
                *kinds,
                *lane,
            ),
        ],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(directory), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said, _ = run.communicate(timeout=CLUSTERED_RUN_S_MAX if mutant.clusters else RUN_S_MAX)
    except subprocess.TimeoutExpired:
        run.send_signal(signal.SIGTERM)
        said, _ = run.communicate(timeout=STOP_S)
    except BaseException:
        run.send_signal(signal.SIGTERM)
        run.wait(STOP_S)
        raise
    return judged(mutant, said, run.returncode), said


def turn(mutants: list[ChaosMutant], count: int, seed: int) -> list[ChaosMutant]:
    """So many of them. The seeds that follow one another go round, so that each has its turn."""
    first = seed * count
    return [mutants[(first + offset) % len(mutants)] for offset in range(min(count, len(mutants)))]


def judged(mutant: ChaosMutant, said: str, exit_status: int) -> list[str] | None:
    """The violations that name the bug; None where a run ended without a verdict."""
    return None if exit_status != 0 and VIOLATIONS not in said else named(mutant, said)


def named(mutant: ChaosMutant, said: str) -> list[str]:
    """The violations in what a run of chaos has said, as far as they name the bug."""
    violations = said.partition(VIOLATIONS)[2].splitlines()[1:]
    return [line.strip() for line in violations if any(piece in line for piece in mutant.says)]


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([mutant.name for mutant in MUTANTS]))
@click.option("--count", type=click.IntRange(1), help="Only so many, chosen by the seed. [default: all]")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Seeds in a row take turns.")
@click.option("--clusters", is_flag=True, help="Those that need clusters, and no others.")
@click.option("--verbose", is_flag=True, help="Show all that chaos said of each.")
def main(names: tuple[str, ...], count: int | None, seed: int, clusters: bool, verbose: bool) -> None:
    """Plant each bug, or these, and fail if chaos does not name one of them."""
    chosen = [each for each in MUTANTS if (each.name in names if names else each.clusters is clusters)]
    if count is not None:
        chosen = turn([mutant for mutant in chosen if mutant.takes_turns], count, seed)
    missed = 0
    for mutant in chosen:
        began = monotonic()
        with tempfile.TemporaryDirectory(prefix="write-coordinator-mutant-") as name:
            directory = Path(name)
            # Processes of other accounts, such as PostgreSQL's, start in it.
            directory.chmod(0o755)
            planted(mutant, directory)
            found, said = caught(mutant, directory)
        missed += not found
        if verbose or not found:
            print(said)
        by = f"by {', '.join(map(str, mutant.kinds))}: {len(found)} violations" if found else "SURVIVES"
        verdict = "NOT JUDGED: the run ended before its verdict" if found is None else by
        print(
            f"{mutant.name}: {mutant.why}",
            f"{verdict}, {monotonic() - began:.0f} s",
            *(found or ())[:1],
            sep="\n  ",
            flush=True,
        )
    print(f"{len(chosen) - missed}/{len(chosen)} caught")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()

"""The files of a history's revisions, which are an author's own code: they fail in any way."""

import traceback
import warnings
from pathlib import Path
from typing import Final

from alembic.config import Config
from alembic.script import ScriptDirectory

from coordinator.service.descriptions import described
from coordinator.service.errors import ConfigurationError

AUTHORS: Final = (AttributeError, ImportError, LookupError, NameError, TypeError, ValueError)
"""What a mistake in a revision raises when it is carried out. Errors of the database are others."""


def revisions_in(versions: Path, config: Config) -> tuple[ScriptDirectory, set[str]]:
    """The revisions of a folder, and their names.

    Raises ConfigurationError, which names the file, for revisions that cannot be read, or that are no one line.
    """
    try:
        with warnings.catch_warnings():
            # Alembic goes on where a name is there twice, or one is missing, and says so on standard error.
            warnings.filterwarnings("error", "Revision .* is (present more than once|not present)", UserWarning)
            script = ScriptDirectory.from_config(config)
            names = {revision.revision for revision in script.walk_revisions()}
            heads = script.get_heads()
    except Exception as error:  # noqa: BLE001  # the author's own code
        raise ConfigurationError(f"the revisions in {versions} cannot be read: {failure_of(error, versions)}") from None
    if len(heads) > 1:
        named = ", ".join(f"{head} ({Path(script.get_revision(head).path).name})" for head in sorted(heads))
        what = "each but one must be the `down_revision` of another"
        raise ConfigurationError(f"the revisions in {versions} have several ends: {named}; {what}")
    return script, names


def failure_of(error: Exception, versions: Path) -> str:
    """An error, with the file and the line of the revision that has raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f" ({each.filename}:{each.lineno})" for each in frames if Path(each.filename).parent == versions]
    return described(error, with_type=not isinstance(error, Warning)) + (places[-1] if places else "")

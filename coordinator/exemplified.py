"""Commands whose help begins with an example: whoever asks for help mostly wants the line to type."""

from typing import Any

import click


class Exemplified(click.Command):
    """A command with an example of its use."""

    def __init__(
        self, *arguments: Any, example: str, looks: bool = False, acts_by: str | None = None, **options: Any
    ) -> None:
        """`example` is what follows `coordinator` on the command line. `looks`: it only looks, and changes nothing.
        `acts_by`: so does this one, without that option."""
        super().__init__(*arguments, **options)
        self.example = example
        self.looks = looks
        self.acts_by = acts_by

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        line = f"coordinator {self.example}"
        if ctx.parent is None and not isinstance(self, click.Group):
            # It is a program of its own, such as `python -m gateways`.
            line = f"{ctx.command_path} {self.example.partition(' ')[2]}"
        formatter.write(f"  $ {line}\n\n")
        super().format_help(ctx, formatter)


class ExemplifiedGroup(Exemplified, click.Group):
    """A group of such commands."""

    command_class = Exemplified

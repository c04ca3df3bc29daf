"""The commands of an administrator, for the command line to register."""

import click

from coordinator.accounts.broker import broker_accounts_command
from coordinator.accounts.database import database_accounts_command

COMMANDS: tuple[click.Command, ...] = (broker_accounts_command, database_accounts_command)

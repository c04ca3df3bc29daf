"""The operator's commands, for the command line to register."""

import click

from coordinator.operate.audit import audit
from coordinator.operate.command import show_command
from coordinator.operate.continuing import continue_
from coordinator.operate.dead import dead
from coordinator.operate.find import find
from coordinator.operate.forget import forget
from coordinator.operate.guard import guard
from coordinator.operate.keys import keys_group
from coordinator.operate.lanes import cancel, log_group, pause, resume
from coordinator.operate.losses import accept_loss
from coordinator.operate.move import move
from coordinator.operate.outbox import outbox
from coordinator.operate.parked import parked, release
from coordinator.operate.queue import queue_group
from coordinator.operate.send import drain, send
from coordinator.operate.status import status
from coordinator.operate.timers import timers
from coordinator.operate.writers import writers

COMMANDS: tuple[click.Command, ...] = (
    status,
    find,
    show_command,
    audit,
    send,
    dead,
    outbox,
    timers,
    parked,
    release,
    continue_,
    forget,
    pause,
    resume,
    accept_loss,
    cancel,
    drain,
    log_group,
    queue_group,
    writers,
    guard,
    move,
    keys_group,
)

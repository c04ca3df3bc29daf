"""The operator's commands: look at the lanes, hold them, mend what went wrong. Nothing here runs in a lane's process."""

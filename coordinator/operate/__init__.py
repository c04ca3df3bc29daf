"""The operator's commands: look at lanes, hold them, mend what went wrong. They run in no lane's process."""

"""The operator's commands: look at lanes, pause them, mend what went wrong. They run in no lane's process."""

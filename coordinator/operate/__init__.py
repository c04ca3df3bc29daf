"""The operator's commands: look at lanes, pause them, mend them. They run outside the lanes' processes."""

"""Commands that stay within one process: a queue for each lane, and a file for what was accepted and is not settled."""

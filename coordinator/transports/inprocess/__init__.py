"""Commands that stay within one process: a queue for each lane, and a file for the accepted ones not settled yet."""

"""The other side of those alternatives that have a queue of their own: one worker process each."""

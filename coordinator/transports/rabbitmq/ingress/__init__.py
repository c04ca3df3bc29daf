"""The queues of outside accounts, and how their messages go on to lanes."""

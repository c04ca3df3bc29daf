"""The ways to write that are measured: the lane, and what one would do without it. Each has a process of its own."""

"""The ways to write that are measured: the lane, and what one would do without it. Each runs in a process of its own."""

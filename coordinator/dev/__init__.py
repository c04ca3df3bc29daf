"""A developer's machine: real servers in a directory, and the supervisor behind `coordinator dev`."""

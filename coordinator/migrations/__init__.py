"""Schema migrations: those of the lane itself, and how those of a service are run."""

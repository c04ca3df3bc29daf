"""An application that goes from one process with SQLAlchemy to a service of its own: docs/MIGRATING.md."""

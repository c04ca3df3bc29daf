"""The projection of committed rows to Redis, and reads from it."""

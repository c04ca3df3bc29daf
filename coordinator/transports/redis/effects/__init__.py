"""Effects over Redis: their stream, and the set in which they wait for the next attempt."""

"""Effect workers: calls to the outside, made concurrently and outside every lane."""

"""Issuing commands, and reading what became of them."""

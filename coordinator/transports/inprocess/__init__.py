"""Lanes and effects within the process of whoever issues commands."""

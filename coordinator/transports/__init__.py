"""Transports carry commands to lanes, and outcomes and effects back."""

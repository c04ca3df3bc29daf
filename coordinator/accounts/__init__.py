"""Accounts with the least rights: what an administrator runs to make them, and the commands that do it for him.

Which rights these are is said beside what needs them: `transports/rabbitmq/rights.py`, `cache/rights.py`, and the kinds
of database.
"""

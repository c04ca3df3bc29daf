"""The servers of a developer's machine and of the tests: real ones, private, on loopback.

Each module of a server loads its driver; a run without servers loads none of them.
"""

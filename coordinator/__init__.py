"""The coordinator: lanes, their stores, their consumers, and the command line."""

"""The tests on current releases of the servers and of Python, in a chroot of a newer Debian."""

"""The services' methods over REST, and nothing else: no business rule lives here.

One process serves one service. It reads the service's database, issues commands, and keeps no state of its
own: any number of them may run side by side.
"""

"""What a client meets when the process that serves it is killed."""

import aiohttp

TORN = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError)
"""The connection ended before the answer, or between its head and its body, which some servers write one by one."""

"""`python -m gateways <service>`."""

from coordinator.http.main import main

main()

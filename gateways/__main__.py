"""`python -m gateways <service>`."""

from gateways.main import main

main()

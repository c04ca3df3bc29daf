"""What gateways are built from."""

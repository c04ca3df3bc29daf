"""The parts from which a service is written."""

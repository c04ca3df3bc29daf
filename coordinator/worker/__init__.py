"""The process that runs a lane: its wiring, its thread, its loop."""

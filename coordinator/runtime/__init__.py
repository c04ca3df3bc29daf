"""What processes have in common: settings, logs, health, event loop."""

"""Parts that all processes share: settings, logs, health, event loop."""

"""The wire format: messages as bytes, and bytes as messages. No database, no broker."""

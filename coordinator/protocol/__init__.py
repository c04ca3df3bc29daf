"""The wire format: turns messages into bytes and bytes into messages. No database, no broker."""

"""Redis as a transport: streams, whose entries are numbered without a gap."""

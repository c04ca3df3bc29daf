"""The system on clusters of servers, whose nodes are killed: of `make cluster-test`."""

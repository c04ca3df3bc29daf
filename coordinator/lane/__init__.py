"""The lane: dedupe, fencing, ordering, batching, fallback and settlement, without any I/O of its own."""

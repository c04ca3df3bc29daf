"""The lane, which decides: what is applied, in which order, in which transactions, and what is answered. No I/O."""

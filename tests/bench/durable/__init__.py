"""What others use so that a write survives a crash: DBOS and Restate, written as their documentation has it."""

"""The whole system on real servers, with faults at random moments: `python -m tests.faults --faults N --seed S`."""

"""What runs a lane: the process, its inbox, its loop."""

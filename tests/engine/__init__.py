"""A Docker engine for tests: this machine's own, or one that is made here, with the images that compose.yaml wants."""

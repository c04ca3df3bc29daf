"""The wheel, as one gets it: built, installed outside the checkout, and used as its documents say. `make package`."""

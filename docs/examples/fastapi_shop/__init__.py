"""A FastAPI application whose writes go through a lane."""

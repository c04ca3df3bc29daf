"""A Flask application whose writes go through a lane."""

"""A service on tables that another application has made."""

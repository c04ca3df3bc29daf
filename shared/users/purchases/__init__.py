"""Purchases: a saga of the users lane that crosses payments and items."""

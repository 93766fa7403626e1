"""Reinitialising a user's own model, layer by layer."""

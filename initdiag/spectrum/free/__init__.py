"""The calculus of free probability."""

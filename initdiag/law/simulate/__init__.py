"""The law of what has no closed form, simulated in a few scalars a network."""

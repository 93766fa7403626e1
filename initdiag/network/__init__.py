"""The records that say what a network is."""

"""Jacobian-vector products of the user's own module over an ensemble of
initialisations.

An ensemble is a way to apply a linear layer to a batch whose rows are independent
networks: with random signs (`signs`), or with freshly drawn weights (`redraw`).
"""

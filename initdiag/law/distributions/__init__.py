"""Distributions of the log of a squared gradient norm: laws, inversion of their
transforms, quantiles, sampling.
"""

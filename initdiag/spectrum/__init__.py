"""The spectrum of the input-output Jacobian in the limit of large width, by free probability.

`transforms` holds the tools, `jacobian` the chain's law; the record is `initdiag.spectrum.record.SpectralLaw`.
"""

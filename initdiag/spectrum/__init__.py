"""The spectrum of the input-output Jacobian in the limit of large width.

`predict.predict_spectrum` returns the record `record.SpectralLaw`. `free` holds the
general calculus of free probability, public as ``initdiag.free``.
"""

from initdiag.spectrum import free

__all__ = ["free"]

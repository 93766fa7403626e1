"""Screening whole files of architectures."""

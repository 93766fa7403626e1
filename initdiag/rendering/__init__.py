"""Renderers: each turns a `Report` into one kind of text and computes no number."""

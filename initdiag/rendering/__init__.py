"""Renderers: siblings, each from a `Report` to one kind of text. None of them computes a number of its own."""

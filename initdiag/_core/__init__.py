"""Foundations that every room stands on: checks of single values, saving and loading,
the terminal.
"""

"""Candidates in files: read, screened and written in batches, with bounded memory,
resumable.
"""

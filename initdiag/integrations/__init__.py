"""Adapters to other libraries, one file each; a file loads its library when it is
imported itself.
"""

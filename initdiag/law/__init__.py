"""The distribution of ``ln||Ju||^2`` of a chain: asymptotic, exact at finite width, and
to first order in the kurtosis.
"""

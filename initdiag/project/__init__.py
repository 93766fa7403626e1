"""What the command line and the pytest plugin share: configuration, targets, baselines,
outcomes.
"""

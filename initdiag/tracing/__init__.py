"""From the user's ``nn.Module`` to an `Architecture`: two witnesses of the dataflow,
and statistics of the weights.
"""

"""What the excess kurtosis of non-Gaussian weights adds to the law."""

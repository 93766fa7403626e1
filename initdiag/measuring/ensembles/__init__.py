"""Where the draws come from: random signs, redrawn weights, the law itself."""

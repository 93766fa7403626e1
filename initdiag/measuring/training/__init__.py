"""Real steps of training on replicas: what is lowered, by what, and what it did."""

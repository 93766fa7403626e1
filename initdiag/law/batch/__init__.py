"""The laws of many architectures at once, on ragged arrays."""

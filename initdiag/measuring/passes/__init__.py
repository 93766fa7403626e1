"""What runs through the module: tangents forward, gradients backward."""

"""Cells and layers: neuron parameters as PyTorch registers them, one time step, whole sequences."""

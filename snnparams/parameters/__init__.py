"""What a parameter of a neuron may be given as: its unit and limits, distributions, constraints, drawn values."""

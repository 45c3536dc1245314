"""What `make derive` writes: a step of each neuron and its derivative, see `snnparams.kernels.derive`."""

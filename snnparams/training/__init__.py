"""The training loop, optimiser groups, what is watched meanwhile, and many networks at once."""

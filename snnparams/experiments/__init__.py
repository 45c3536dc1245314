"""Controlled experiments: grids, networks, trials, statistics. What chapter 6 is made of."""

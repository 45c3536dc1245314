"""Data sets and generated tasks as tensors in memory, and how they become spikes."""

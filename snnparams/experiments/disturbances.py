"""Inputs that are altered after training: stretched in time, or with noise. Explained in chapter 6."""

from __future__ import annotations

import torch


def time_warp(spikes: torch.Tensor, factor: float) -> torch.Tensor:
    """Return spikes (T, B, I) stretched in time by a factor; spikes that fall into one step become one.

    Raises:
        ValueError: if the factor is not positive.
    """
    if not factor > 0:
        raise ValueError(f"factor: expected a positive number, got {factor}")
    steps = (torch.arange(len(spikes), device=spikes.device) * factor).long()
    out = torch.zeros(max(1, round(len(spikes) * factor)), *spikes.shape[1:], device=spikes.device)
    return out.index_add_(0, steps.clamp(max=len(out) - 1), spikes.to_dense()).clamp_(max=1)


def add_noise(spikes: torch.Tensor, level: float, generator: torch.Generator) -> torch.Tensor:
    """Return spikes (T, B, I) and random ones at `level` times their mean rate, drawn on a CPU.

    Raises:
        ValueError: if the level is negative or so high that every input would spike all the time.
    """
    spikes = spikes.to_dense()
    rate = level * spikes.mean().item()
    if not 0 <= rate < 1:
        raise ValueError(f"level: expected noise of 0 to 1 spikes per time step, got {rate:g} at level {level}")
    return torch.maximum(spikes, (torch.rand(spikes.shape, generator=generator) < rate).to(spikes))

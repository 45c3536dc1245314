"""Inputs that are altered after training, by hand and by their rates."""

import pytest
import torch

from snnparams.experiments.disturbances import add_noise, time_warp


def test_time_warp_by_hand():
    spikes = torch.zeros(6, 1, 2)
    spikes[[0, 3, 4], 0, 0] = 1
    assert time_warp(spikes, 1.0).equal(spikes)
    assert time_warp(spikes, 2.0)[:, 0, 0].nonzero().flatten().tolist() == [0, 6, 8]
    slow = time_warp(spikes, 0.5)
    assert slow.shape == (3, 1, 2)
    assert slow[:, 0, 0].tolist() == [1, 1, 1]
    assert time_warp(spikes, 0.25)[:, 0, 0].tolist() == [1, 1]  # 3 and 4 fall into steps 0 and 1
    with pytest.raises(ValueError, match="factor: expected a positive number, got 0"):
        time_warp(spikes, 0)


def test_noise_adds_spikes_and_takes_none_away():
    spikes = (torch.rand(200, 5, 50, generator=torch.Generator().manual_seed(0)) < 0.05).float()
    generator = torch.Generator().manual_seed(1)
    noisy = add_noise(spikes, 1.0, generator)
    assert (noisy >= spikes).all()
    assert noisy.mean().item() == pytest.approx(0.05 + 0.05 * 0.95, rel=0.05)
    assert add_noise(spikes, 0.0, generator).equal(spikes)
    with pytest.raises(ValueError, match="level: expected noise of 0 to 1"):
        add_noise(spikes, 30.0, generator)

"""The network of chapter 4: one recurrent LIF layer between an encoder and a leaky readout."""

from __future__ import annotations

import torch
from torch import nn

from snnparams.data.encoding import ConstantCurrentLIFEncoder
from snnparams.data.mnist import DEVIATION, MEAN
from snnparams.layers.layer import LI, LIFRecurrent
from snnparams.neurons import LIFParameters


class PixelCurrents(nn.Module):
    """Turn bytes into input currents: pixels scaled to mean 0 and variance 1 over MNIST.

    Called with images (B, 28, 28) of type uint8, it returns currents (B, 784) from -0.42 (black) to 2.82 (white):
    those of torchvision's `ToDtype` and `Normalize`.
    """

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return currents (B, 784)."""
        pixels = images.flatten(1).to(torch.float32).mul(1 / 255)
        return pixels.sub_(MEAN).div_(DEVIATION)


class SNN(nn.Module):
    """One recurrent LIF layer and a leaky readout.

    Args:
        input_features: number of inputs I.
        hidden_features: number of LIF neurons H.
        output_features: number of readout units O.
        p: parameters of the LIF neurons.

    Called with spikes (T, B, I), it returns the voltages of the readout (T, B, O).
    """

    def __init__(self, input_features: int, hidden_features: int, output_features: int, p: LIFParameters) -> None:
        super().__init__()
        self.hidden = LIFRecurrent(input_features, hidden_features, p)
        self.fc_out = nn.Linear(hidden_features, output_features, bias=False)
        self.out = LI()

    def forward(self, spikes: torch.Tensor) -> torch.Tensor:
        """Return voltages (T, B, O)."""
        z, _ = self.hidden(spikes)
        voltages, _ = self.out(self.fc_out(z))
        return voltages


def decode(voltages: torch.Tensor) -> torch.Tensor:
    """Turn the voltages of the readout (T, B, O) into log-probabilities (B, O): maximum over time, log-softmax."""
    return torch.log_softmax(voltages.amax(dim=0), dim=1)


class Model(nn.Module):
    """An encoder, a spiking network and a decoder, one after the other."""

    def __init__(self, encoder: nn.Module, snn: nn.Module, decoder) -> None:
        super().__init__()
        self.encoder, self.snn, self.decoder = encoder, snn, decoder

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities (B, O)."""
        return self.decoder(self.snn(self.encoder(images)))


def mnist_model(
    p: LIFParameters, hidden_features: int = 100, seq_length: int = 32, spike_layout: torch.layout = torch.sparse_coo
) -> Model:
    """Build the model of chapter 4 for images (B, 28, 28) of type uint8 in ten classes.

    Args:
        p: parameters of the hidden neurons.
        hidden_features: their number.
        seq_length: number of time steps.
        spike_layout: of the encoded images: sparse suits a CPU, `torch.strided` a GPU.
    """
    encoder = nn.Sequential(PixelCurrents(), ConstantCurrentLIFEncoder(seq_length, layout=spike_layout))
    return Model(encoder, SNN(28 * 28, hidden_features, 10, p), decode)


def __dir__() -> list[str]:
    return [
        name for name, value in globals().items() if getattr(value, "__module__", "") == __name__ and name[0] != "_"
    ]

"""Spiking neurons in PyTorch whose time constants and thresholds can differ and be learned."""

from snnparams.adjoint import spike_times
from snnparams.cells import LICell, LIFCell, LIFRecurrentCell
from snnparams.data import CorruptDataError, Digits, Split, load_mnist
from snnparams.dynamics import (
    LIFFeedForwardState,
    LIFState,
    LIState,
    li_feed_forward_step,
    li_step,
    lif_feed_forward_step,
    lif_recurrent_current_step,
    lif_step,
)
from snnparams.encoding import ConstantCurrentLIFEncoder, constant_current_lif_encode
from snnparams.ensemble import Ensemble
from snnparams.layers import LI, LIF, LIFRecurrent
from snnparams.parameters import LIFParameters, LIParameters, NeuronParameters
from snnparams.surrogate import surrogate_derivative, threshold
from snnparams.training import Evaluation, History, evaluate, fit, progress_bar, train, validate_neuron_parameters

__version__ = "0.1.0"

__all__ = [
    "LI",
    "LIF",
    "ConstantCurrentLIFEncoder",
    "CorruptDataError",
    "Digits",
    "Ensemble",
    "Evaluation",
    "History",
    "LICell",
    "LIFCell",
    "LIFFeedForwardState",
    "LIFParameters",
    "LIFRecurrent",
    "LIFRecurrentCell",
    "LIFState",
    "LIParameters",
    "LIState",
    "NeuronParameters",
    "Split",
    "constant_current_lif_encode",
    "evaluate",
    "fit",
    "li_feed_forward_step",
    "li_step",
    "lif_feed_forward_step",
    "lif_recurrent_current_step",
    "lif_step",
    "load_mnist",
    "progress_bar",
    "spike_times",
    "surrogate_derivative",
    "threshold",
    "train",
    "validate_neuron_parameters",
]

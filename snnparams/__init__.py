"""Spiking neurons in PyTorch whose time constants and thresholds can differ and be learned.

Folders, each of which knows only those above it:

parameters    what a parameter of a neuron may be given as: unit and limits, distributions, constraints  (chapters 2, 5)
neurons       what a neuron is: state, parameters, one step, spike functions                               (1 and 8)
kernels       whole sequences, forward and backward; the adjoint method                                   (7 and 10)
layers        neuron parameters as PyTorch registers them, cells, layers, delays                        (3, 4 and 9)
data          data sets and generated tasks, encoders                                                      (4 and 6)
training      the loop, optimiser groups, diagnostics, ensembles                                          (4, 5 and 10)
experiments   grids, trials, statistics                                                                    (6)
interop       networks of other libraries
plot          pictures
"""

from typing import TYPE_CHECKING

from snnparams import neurons
from snnparams.data.encoding import ConstantCurrentLIFEncoder, constant_current_lif_encode, integrate_and_fire
from snnparams.data.mnist import CorruptDataError, Digits, Split, load_mnist
from snnparams.data.spike_trains import (
    PoissonEncoder,
    SpikeLatencyLIFEncoder,
    poisson_encode,
    spike_latency_lif_encode,
)
from snnparams.interop.from_nir import from_nir
from snnparams.interop.from_norse import from_norse
from snnparams.interop.lightning import to_lightning
from snnparams.interop.to_nir import to_nir
from snnparams.kernels.spike_timing import spike_times
from snnparams.layers import sequences, states
from snnparams.layers.cells import Cell, LICell, LIFCell, LIFRecurrentCell, RecurrentCell
from snnparams.layers.delay import Delay, DelayedLinear, DelayState
from snnparams.layers.delayed_recurrent import DelayedRecurrentLayer, DelayedRecurrentState
from snnparams.layers.initialisation import RateError, fluctuation_driven_, reach_rate_
from snnparams.layers.layer import LI, LIF, Layer, LIFRecurrent, RecurrentLayer
from snnparams.layers.neuron_parameters import NeuronParameters
from snnparams.layers.sequential import OverTime, Sequential
from snnparams.neurons import LIFFeedForwardState, LIFParameters, LIFState, LIParameters, LIState, Neuron, rate, voltage
from snnparams.neurons.dynamics import (
    li_feed_forward_step,
    li_step,
    lif_feed_forward_step,
    lif_step,
    neuron_step,
)
from snnparams.neurons.surrogate import Adjoint, Surrogate, surrogate_derivative
from snnparams.parameters import constraints, distributions
from snnparams.parameters.declared import Fixed, Learned
from snnparams.training.diagnostics import (
    Activity,
    activity,
    gradient_to_value,
    learned_values,
    not_optimized,
    zero_gradients,
)
from snnparams.training.ensemble import Ensemble
from snnparams.training.groups import parameter_groups
from snnparams.training.history import Evaluation, History
from snnparams.training.loop import evaluate, fit, progress_bar, train, validate_neuron_parameters
from snnparams.training.recording import Recorded, record
from snnparams.training.regularisation import rate_bounds_loss

if TYPE_CHECKING:  # loaded when they are used: matplotlib and SciPy are slow to import
    from snnparams import plot
    from snnparams.data import tasks
    from snnparams.training import models

__version__ = "0.1.0"

_LATER = {"models": "snnparams.training.models", "plot": "snnparams.plot", "tasks": "snnparams.data.tasks"}

__all__ = [
    "LI",
    "LIF",
    "Activity",
    "Adjoint",
    "Cell",
    "ConstantCurrentLIFEncoder",
    "CorruptDataError",
    "Delay",
    "DelayState",
    "DelayedLinear",
    "DelayedRecurrentLayer",
    "DelayedRecurrentState",
    "Digits",
    "Ensemble",
    "Evaluation",
    "Fixed",
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
    "Layer",
    "Learned",
    "Neuron",
    "NeuronParameters",
    "OverTime",
    "PoissonEncoder",
    "RateError",
    "Recorded",
    "RecurrentCell",
    "RecurrentLayer",
    "Sequential",
    "SpikeLatencyLIFEncoder",
    "Split",
    "Surrogate",
    "activity",
    "constant_current_lif_encode",
    "constraints",
    "distributions",
    "evaluate",
    "fit",
    "fluctuation_driven_",
    "from_nir",
    "from_norse",
    "gradient_to_value",
    "integrate_and_fire",
    "learned_values",
    "li_feed_forward_step",
    "li_step",
    "lif_feed_forward_step",
    "lif_step",
    "load_mnist",
    "models",
    "neuron_step",
    "neurons",
    "not_optimized",
    "parameter_groups",
    "plot",
    "poisson_encode",
    "progress_bar",
    "rate",
    "rate_bounds_loss",
    "reach_rate_",
    "record",
    "sequences",
    "spike_latency_lif_encode",
    "spike_times",
    "states",
    "surrogate_derivative",
    "tasks",
    "to_lightning",
    "to_nir",
    "train",
    "validate_neuron_parameters",
    "voltage",
    "zero_gradients",
]


def __getattr__(name: str):
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return importlib.import_module(_LATER[name])


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


del TYPE_CHECKING  # no name of the package

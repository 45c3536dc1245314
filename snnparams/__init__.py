"""Spiking neurons in PyTorch whose time constants and thresholds can differ and be learned.

Where the book explains which module:

1  the neuron               dynamics, surrogate, cells, encoding
2  differing neurons        neurons, distributions
3  registering parameters   values, parameters, cells
4  training on MNIST        data, encoding, spike_trains, layers, models, training, history, initialisation
5  training them well       constraints, groups, diagnostics
6  does it help?            memory, predictions, tasks, task, memory_tasks, sound, heidelberg, designs, networks,
                            resets, regularisation, trial, tuning, reference_levels, drift, disturbances,
                            experiment, statistics
7  exact gradients          adjoint, yin_yang
8  a neuron of your own     neurons
9  speed                    kernels, ensemble
"""

import importlib
from typing import TYPE_CHECKING

from snnparams import constraints, distributions, neurons, sequences, states
from snnparams.cells import Cell, LICell, LIFCell, LIFRecurrentCell, RecurrentCell
from snnparams.data import CorruptDataError, Digits, Split, load_mnist
from snnparams.delay import Delay, DelayedLinear, DelayedRecurrentLayer, DelayedRecurrentState, DelayState
from snnparams.diagnostics import Activity, activity, gradient_to_value, learned_values, zero_gradients
from snnparams.dynamics import (
    li_feed_forward_step,
    li_step,
    lif_feed_forward_step,
    lif_step,
    neuron_step,
)
from snnparams.encoding import ConstantCurrentLIFEncoder, constant_current_lif_encode
from snnparams.ensemble import Ensemble
from snnparams.exchange import from_nir, from_norse, to_nir
from snnparams.groups import parameter_groups
from snnparams.history import Evaluation, History
from snnparams.initialisation import RateError, fluctuation_driven_, reach_rate_
from snnparams.layers import LI, LIF, Layer, LIFRecurrent, RecurrentLayer
from snnparams.neurons import LIFFeedForwardState, LIFParameters, LIFState, LIParameters, LIState, Neuron, rate, voltage
from snnparams.parameters import NeuronParameters
from snnparams.recording import Recorded, record
from snnparams.regularisation import rate_bounds_loss
from snnparams.sequential import OverTime, Sequential
from snnparams.spike_timing import spike_times
from snnparams.spike_trains import (
    PoissonEncoder,
    SpikeLatencyLIFEncoder,
    poisson_encode,
    spike_latency_lif_encode,
)
from snnparams.surrogate import Adjoint, Surrogate, surrogate_derivative
from snnparams.training import evaluate, fit, progress_bar, train, validate_neuron_parameters
from snnparams.values import Fixed, Learned

if TYPE_CHECKING:  # loaded when they are used: torchvision, matplotlib and SciPy are slow to import
    from snnparams import models, plot, tasks

__version__ = "0.1.0"

_LATER = {"models": "snnparams.models", "plot": "snnparams.plot", "tasks": "snnparams.tasks"}

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
    "learned_values",
    "li_feed_forward_step",
    "li_step",
    "lif_feed_forward_step",
    "lif_step",
    "load_mnist",
    "models",
    "neuron_step",
    "neurons",
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
    "to_nir",
    "train",
    "validate_neuron_parameters",
    "voltage",
    "zero_gradients",
]


def __getattr__(name: str):
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(_LATER[name])


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

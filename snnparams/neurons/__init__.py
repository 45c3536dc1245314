"""What neurons are: each a class in a file of its own, from which all else in this package is made."""

from snnparams.neurons.li import LIParameters, LIState
from snnparams.neurons.lif import LIFFeedForwardState, LIFParameters, LIFState
from snnparams.neurons.neuron import Neuron, Value, as_given
from snnparams.neurons.parameter import Parameter, rate, voltage

__all__ = [
    "LIFFeedForwardState",
    "LIFParameters",
    "LIFState",
    "LIParameters",
    "LIState",
    "Neuron",
    "Parameter",
    "Value",
    "as_given",
    "rate",
    "voltage",
]

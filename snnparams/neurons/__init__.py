"""What neurons are: each a class in a file of its own, from which all else in this package is made.

A neuron of this package has its line here, and is used as `snnparams.neurons.NAME`; those of the first chapters, `LIF`
and `LI`, are layers of `snnparams` itself as well.
"""

from snnparams.neurons.adaptive_lif import AdaptiveLIF as AdaptiveLIF
from snnparams.neurons.adlif import EFAdLIF as EFAdLIF
from snnparams.neurons.adlif import SEAdLIF as SEAdLIF
from snnparams.neurons.exact_lif import ExactLIF as ExactLIF
from snnparams.neurons.li import LIParameters as LIParameters
from snnparams.neurons.li import LIState as LIState
from snnparams.neurons.lif import LIFFeedForwardState as LIFFeedForwardState
from snnparams.neurons.lif import LIFParameters as LIFParameters
from snnparams.neurons.lif import LIFState as LIFState
from snnparams.neurons.lif import SubtractiveLIF as SubtractiveLIF
from snnparams.neurons.neuron import Neuron as Neuron
from snnparams.neurons.neuron import Value as Value
from snnparams.neurons.neuron import as_given as as_given
from snnparams.neurons.partial_reset_lif import PartialResetLIF as PartialResetLIF
from snnparams.neurons.slope_lif import SlopeLIF as SlopeLIF
from snnparams.parameters.parameter import Parameter as Parameter
from snnparams.parameters.parameter import rate as rate
from snnparams.parameters.parameter import voltage as voltage


def __dir__() -> list[str]:
    return [name for name in globals() if name[0].isupper() or name in ("rate", "voltage")]

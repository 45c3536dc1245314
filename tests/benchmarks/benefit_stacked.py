"""Networks of one size as one, for many trials side by side: their parameters, spikes, voltages and losses."""

import functools
import json
import math

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot

from snnparams.experiments.designs import ADAPTATION, DETACH, DT, LEARNABLE, RESETS, Architecture, Neurons
from snnparams.experiments.networks import build, filters
from snnparams.experiments.trial import Training, make_task
from snnparams.kernels import fused_sequence
from snnparams.layers.delay_parameters import _whole_and_fraction
from snnparams.layers.initialisation import RateError
from snnparams.neurons import AdaptiveLIF, LIFParameters, PartialResetLIF
from snnparams.neurons.step import PROGRAMS

RATES = ("learning_rate", "neuron_learning_rate")
# under which a neuron parameter is stored
STORED = {name: f"{name}_inv" if name.startswith("tau") else name for name in (*LEARNABLE, *ADAPTATION, "delay")}
TO_READOUT = -1  # stands for a layer where delays to the readout are meant, which belong to none
CONSTANTS = {"a": "tau_mem", "b": "tau_syn", "r": "tau_adapt"}  # of a step, by the time constant in each


def size_of(cell: dict) -> str:
    """Return what the cells of trials that are computed side by side have in common."""
    task = {name: x for name, x in cell["task"].items() if name not in ("seed", "fold")}
    architecture = Architecture(**cell["architecture"])
    alike = {name: getattr(architecture, name) for name in ("hidden", "layers", "recurrent", "alpha", "readout")}
    alike["standard reset"] = architecture.reset == "zero" and not architecture.clear_synapse
    alike["adaptation"] = cell["neurons"].get("tau_adapt") is not None
    alike["delays"] = bool(cell["neurons"].get("delay"))
    answers = task["name"] in ("windows", "multi-timescale xor")
    alike["readout_tau"] = None if answers and not alike["delays"] else architecture.readout_tau
    training = {name: x for name, x in cell["training"].items() if name not in RATES}
    folds = "fold" in cell["task"]  # their training splits are smaller
    rest = cell["test"], cell.get("disturbed", False)
    return json.dumps([task, alike, training, folds, rest], sort_keys=True)


task_of = functools.lru_cache(maxsize=24)(make_task.__wrapped__)  # more than a trial alone needs at a time


def bits(description: str, split: str) -> torch.Tensor:
    """Return all inputs of a split of a task as bits (N, T, I)."""
    task = task_of(description)
    if task.answers:  # generated tasks are bits already
        return getattr(task, split).inputs
    parts = [task.encode(x).to_dense().transpose(0, 1) > 0 for x in getattr(task, split).inputs.split(1000)]
    return torch.cat(parts)


class Stacked:
    """The networks of some cells as one, with the axis of the networks in front of all tensors.

    Args:
        cells: those of `snnparams.experiments.trial.run_trial`, with one `size_of`.
        device: where to compute.

    `failed` says of each network why it could not be built, or None.
    """

    def __init__(self, cells: list[dict], device: torch.device | str) -> None:
        self.device = torch.device(device)
        self.failed: list[str | None] = [None] * len(cells)
        self.networks: list = []
        self.cells: list[dict] = []
        self.index: list[int] = []  # of each network among the cells
        described: list[str] = []
        for k, cell in enumerate(cells):
            description = json.dumps(cell["task"], sort_keys=True)
            task = task_of(description)
            try:
                network = build(Neurons(**cell["neurons"]), Architecture(**cell["architecture"]), task, cell["seed"])
            except RateError as error:
                self.failed[k] = str(error)
                continue
            self.networks.append(network)
            self.cells.append(cell)
            self.index.append(k)
            described.append(description)
        if not self.networks:
            return
        self.task, self.descriptions = task, list(dict.fromkeys(described))
        self.slot = torch.tensor([self.descriptions.index(d) for d in described], device=self.device)
        self.training = Training(**self.cells[0]["training"])
        self.architectures = [Architecture(**cell["architecture"]) for cell in self.cells]
        self._stack()

    # ---------------------------------------------------------------------------------------------------- networks

    def _stacked(self, tensors) -> torch.Tensor:
        return torch.stack([x.detach() for x in tensors]).to(self.device)

    def _stack(self) -> None:
        """Put the numbers of all networks together: weights in one matrix, neuron parameters in another."""
        first, networks = self.networks[0], self.networks
        self.shapes = {name: x.shape for name, x in first.named_parameters() if ".p." not in name}
        of_networks = [dict(network.named_parameters()) for network in networks]
        self.weights = self._stacked(torch.cat([p[name].flatten() for name in self.shapes]) for p in of_networks)
        self.layers = range(len(first.layers))
        self.factors = [
            {
                name: self._stacked(n.layers[k].parametrizations[name][0].factor for n in networks)
                for name in first.layers[k].parametrizations
            }
            for k in self.layers
        ]
        self.adapts = self.cells[0]["neurons"].get("tau_adapt") is not None
        names = LEARNABLE + ADAPTATION if self.adapts else LEARNABLE
        self.slots = [(k, name) for k in self.layers for name in names]  # of neuron parameters, each (E, H)
        self.delayed = first.delay is not None
        if self.delayed:
            self.slots.append((TO_READOUT, "delay"))
        hidden = first.layers[0].weights.shape[0]
        raw, fixed = [], []
        self.constraints: dict = {}
        for network in networks:
            for k, name in self.slots:
                p, stored = self._parameters_of(network, k), STORED[name]
                if p.constraint(stored) is None:
                    raw.append(torch.zeros(hidden))
                    fixed.append(getattr(p, stored).detach().expand(hidden))
                else:
                    self.constraints[name] = p.constraint(stored)
                    raw.append(p.parametrizations[stored].original.detach().expand(hidden))
                    fixed.append(torch.full((hidden,), math.nan))
        shape = len(networks), len(self.slots), hidden
        self.neurons = torch.stack(raw).view(shape).to(self.device)
        self.fixed = torch.stack(fixed).view(shape).to(self.device)
        self.is_learned = self.fixed.isnan()
        self.fixed.nan_to_num_(1.0)
        of_cells = [Neurons(**cell["neurons"]) for cell in self.cells]
        self.shared = torch.tensor([n.shared for n in of_cells], device=self.device)[:, None, None]
        self.share = torch.where(self.shared, 1 / hidden, 1.0)  # of a number that stands in so many places
        self.has_neurons = bool(self.is_learned.any())
        shares = [(*RESETS[a.reset], float(a.clear_synapse)) for a in self.architectures]
        of_reset = torch.tensor(shares, device=self.device).T[..., None].expand(-1, -1, hidden)  # each (E, H)
        self.of_reset = dict(zip(("of_voltage", "of_threshold", "of_current"), of_reset, strict=True))
        outputs = torch.tensor([output for _, output in self.task.answers], dtype=torch.long)
        self.output = one_hot(outputs, self.task.outputs).float().to(self.device)  # that of each answer, (A, O)
        if self.delayed and self.task.answers:
            steps, self.answer = self.task.steps, first.answer.to(self.device)
            self.by_lag = filters(first.distinct_taus, steps).T[..., None].to(self.device)  # (T, R, 1)
            self.lags = (first.distinct_due.long() - torch.arange(steps)[:, None]).to(self.device)  # (T, R)
        self._kernels: dict[int, torch.Tensor] = {}
        self.splits: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    @staticmethod
    def _parameters_of(network, layer: int):
        """Return the module that holds the neuron parameters of a layer, or the delays to the readout."""
        return network.delay.p if layer == TO_READOUT else network.layers[layer].p

    def _kernel(self, steps: int) -> torch.Tensor:
        """Return the readouts' filters: (E, A, T) for answers, for classes those of the first network."""
        if steps not in self._kernels:
            first = self.networks[0]
            if self.task.answers:
                self._kernels[steps] = self._stacked(n.kernel for n in self.networks)
            else:
                same = steps == first.kernel.shape[-1]
                self._kernels[steps] = (first.kernel if same else first._kernel_over_time(steps)).to(self.device)
        return self._kernels[steps]

    def _parameters(self, weights: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the weights under their names, each with the axis of the networks in front."""
        parts = weights.split([shape.numel() for shape in self.shapes.values()], dim=1)
        return {name: x.unflatten(1, shape) for (name, shape), x in zip(self.shapes.items(), parts, strict=True)}

    def _neuron_values(self, neurons: torch.Tensor) -> dict[tuple[int, str], torch.Tensor]:
        """Return what each neuron parameter is, (E, H): time constants as their inverse, per second."""
        found = {}
        for k, (layer, name) in enumerate(self.slots):
            value = self.fixed[:, k]
            if name in self.constraints:
                learned = self.constraints[name](neurons[:, k])
                value = torch.where(self.is_learned[:, k], learned, value)
            found[layer, name] = value
        return found

    def _spikes(self, currents: torch.Tensor, p: dict, recurrent_weights: torch.Tensor | None) -> torch.Tensor:
        """Return the spikes of a layer; `p` has its neuron parameters, each (E, H)."""
        neuron = AdaptiveLIF if self.adapts else LIFParameters if self.standard_reset else PartialResetLIF
        program = PROGRAMS[neuron.program]
        rates = {constant: DT * p[name] for constant, name in CONSTANTS.items() if name in p}
        given = dict.fromkeys(("v_leak", "v_reset"), torch.zeros_like(p["v_th"])) | self.of_reset | p | rates
        values = torch.stack([given[name] for name in program.parameters], dim=1)
        start = torch.zeros_like(currents[:, :1]).repeat(1, len(program.state), 1, 1)
        kernel = "triton" if currents.is_cuda else "cpu"
        how = "super", self.architectures[0].alpha, DETACH, torch.is_grad_enabled(), kernel
        return fused_sequence.sequence(currents, start, recurrent_weights, values, neuron.program, *how)[0]

    def forward(self, x: torch.Tensor, weights: torch.Tensor, neurons: torch.Tensor):
        """Return logits (E, B, ...) and a list of spikes (E, T, B, H) for spikes (E, T, B, I)."""
        w, p, hidden = self._parameters(weights), self._neuron_values(neurons), []
        for k in self.layers:
            given = {
                name: w[f"layers.{k}.parametrizations.{name}.original"] * factor
                for name, factor in self.factors[k].items()
            }
            currents = (x.flatten(1, 2) @ given["weights"].mT).unflatten(1, x.shape[1:3])
            of_layer = {name: value for (layer, name), value in p.items() if layer == k}
            x = self._spikes(currents, of_layer, given.get("recurrent_weights"))
            hidden.append(x)
        return self._decode(x, w["readout_weights"], w["bias"], p.get((TO_READOUT, "delay"))), hidden

    @property
    def standard_reset(self) -> bool:
        """Whether all networks have the reset of the kernels."""
        return all(a.reset == "zero" and not a.clear_synapse for a in self.architectures)

    def _late(self, x: torch.Tensor, delay: torch.Tensor) -> torch.Tensor:
        """Return what arrives of (E, T, n, H) with delays (E, H) in s, between two steps by interpolation."""
        whole, fraction = _whole_and_fraction(delay / DT)
        before = torch.cat([torch.zeros_like(x[:, :1]), x], dim=1)  # what has not come in yet
        at = torch.arange(1, x.shape[1] + 1, device=x.device)[:, None, None] - whole[:, None, None]  # (E, T, 1, H)
        later, earlier = (before.gather(1, k.clamp(min=0).expand(x.shape)) for k in (at, at - 1))
        return later + fraction[:, None, None] * (earlier - later)

    def _late_kernel(self, delay: torch.Tensor) -> torch.Tensor:
        """Return what a spike at each time counts for the distinct answers (E, T, R, H), see `networks.Network`."""
        late = self._late(self.by_lag.expand(len(delay), -1, -1, delay.shape[1]), delay)
        answers = torch.arange(self.lags.shape[1], device=self.device)
        return late[:, self.lags.clamp(min=0), answers] * (self.lags >= 0)[..., None]

    def _filtered(self, z: torch.Tensor, delay: torch.Tensor | None) -> torch.Tensor:
        """Return the spikes (E, T, B, H) as the answers see them: (E, A, B, H)."""
        if delay is None:
            return (self._kernel(z.shape[1]) @ z.flatten(2)).unflatten(2, z.shape[2:])
        kernel = self._late_kernel(delay)
        distinct = [(kernel[:, :, k, None] * z).sum(dim=1) for k in range(kernel.shape[2])]
        return torch.stack(distinct, dim=1)[:, self.answer]

    def _decode(self, z: torch.Tensor, weights: torch.Tensor, bias: torch.Tensor, delay: torch.Tensor | None):
        if self.task.answers:
            logits = torch.einsum("eabh,eah->eba", self._filtered(z, delay), self.output @ weights)
            return logits + (bias @ self.output.T)[:, None]
        kernel = self._kernel(z.shape[1])
        if delay is not None:
            z = self._late(z, delay)
        outputs = z @ weights.mT[:, None]  # (E, T, B, O)
        if self.architectures[0].readout == "mean":
            return torch.einsum("etbo,ot->ebo", outputs, kernel) + bias[:, None]
        return torch.einsum("ots,esbo->etbo", kernel, outputs).amax(dim=1) + bias[:, None]

    def losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy of each network, a mean over its batch: (E,)."""
        if self.task.answers:
            each = binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")
            return each.mean(dim=(1, 2))
        each = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        return each.view(labels.shape).mean(dim=1)

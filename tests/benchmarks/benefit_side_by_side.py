"""Many trials of chapter 6's experiment side by side, for a GPU, which one small network would leave idle.

A trial alone is `snnparams.experiments.trial.run_trial`. This computes the same for E networks of one size at once:
equal initial numbers, batches in the same order, the same loss, gradients shortened for each network by itself, Adam
with a learning rate for each. Results differ by rounding only, and by what rounding does to a training that amplifies
it. All tensors have the axis of the networks in front; `snnparams.kernels.fused_sequence` computes it as one more axis.

On a GPU, one update is recorded once (a CUDA graph) and then repeated: its hundred small kernels would take longer to
launch than to run.
"""

import functools
import json
import math

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot

from snnparams.experiments.designs import ADAPTATION, DETACH, DT, LEARNABLE, RESETS, Architecture, Neurons
from snnparams.experiments.disturbances import add_noise, time_warp
from snnparams.experiments.networks import build
from snnparams.experiments.trial import NOISE, WARPS, Training, make_task, neuron_values, one_thread
from snnparams.kernels import fused_sequence
from snnparams.layers.initialisation import RateError
from snnparams.neurons import LIFParameters
from snnparams.neurons.surrogate import threshold
from snnparams.training.regularisation import rate_bounds_loss

RATES = ("learning_rate", "neuron_learning_rate")
# under which a neuron parameter is stored
STORED = {name: f"{name}_inv" if name.startswith("tau") else name for name in LEARNABLE + ADAPTATION}
BETAS, EPSILON = (0.9, 0.999), 1e-8  # of Adam


def size_of(cell: dict) -> str:
    """Return what the cells of trials that are computed side by side have in common."""
    task = {name: x for name, x in cell["task"].items() if name not in ("seed", "fold")}
    architecture = Architecture(**cell["architecture"])
    alike = {name: getattr(architecture, name) for name in ("hidden", "layers", "recurrent", "alpha", "readout")}
    alike["standard reset"] = architecture.reset == "zero" and not architecture.clear_synapse
    alike["adaptation"] = cell["neurons"].get("tau_adapt") is not None
    alike["readout_tau"] = None if task["name"] in ("windows", "multi-timescale xor") else architecture.readout_tau
    training = {name: x for name, x in cell["training"].items() if name not in RATES}
    folds = "fold" in cell["task"]  # their training splits are smaller
    rest = cell["test"], cell.get("disturbed", False)
    return json.dumps([task, alike, training, folds, rest], sort_keys=True)


_task = functools.lru_cache(maxsize=24)(make_task.__wrapped__)  # more than a trial alone needs at a time


def _bits(description: str, split: str) -> torch.Tensor:
    """Return all inputs of a split of a task as bits (N, T, I)."""
    task = _task(description)
    if task.answers:  # generated tasks are bits already
        return getattr(task, split).inputs
    parts = [task.encode(x).to_dense().transpose(0, 1) > 0 for x in getattr(task, split).inputs.split(1000)]
    return torch.cat(parts)


class SideBySide:
    """The networks of some cells, and their training.

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
            task = _task(description)
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
        hidden = first.layers[0].weights.shape[0]
        raw, fixed = [], []
        self.constraints: dict = {}
        for network in networks:
            for k, name in self.slots:
                p, stored = network.layers[k].p, STORED[name]
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
        shares = [[*RESETS[a.reset], float(a.clear_synapse)] for a in self.architectures]
        self.of_reset = torch.tensor(shares, device=self.device).T[:, :, None, None]  # (3, E, 1, 1)
        outputs = torch.tensor([output for _, output in self.task.answers], dtype=torch.long)
        self.output = one_hot(outputs, self.task.outputs).float().to(self.device)  # that of each answer, (A, O)
        self._kernels: dict[int, torch.Tensor] = {}
        self.splits: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

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

    def _by_a_loop(self, currents, p: dict, recurrent_weights):
        """Return the spikes of populations of any kind; of plain LIF there is a kernel on a GPU, and none here.

        `p` has the neuron parameters of the layer, each (E, H).
        """
        of_voltage, of_threshold, clears = self.of_reset
        a, b, v_th = DT * p["tau_mem"][:, None], DT * p["tau_syn"][:, None], p["v_th"][:, None]
        v = i = adaptation = torch.zeros_like(currents[:, 0])
        z, spikes, alpha = None, [], self.architectures[0].alpha
        for current in currents.unbind(1):
            i = i + current
            if recurrent_weights is not None and z is not None:
                i = i + z @ recurrent_weights.mT
            v = v + a * (i - v)
            i = i - b * i
            raised = v_th + p["beta"][:, None] * adaptation if self.adapts else v_th
            z = threshold(v - raised, "super", alpha)
            if self.adapts:
                adaptation = adaptation - DT * p["tau_adapt"][:, None] * adaptation + z
            spikes.append(z)
            erases = z.detach() if DETACH else z
            v = v - erases * (of_voltage * v + of_threshold * v_th)
            i = i - (clears * erases) * i
        return torch.stack(spikes, dim=1)

    def forward(self, x: torch.Tensor, weights: torch.Tensor, neurons: torch.Tensor):
        """Return logits (E, B, ...) and a list of spikes (E, T, B, H) for spikes (E, T, B, I)."""
        w, p, hidden = self._parameters(weights), self._neuron_values(neurons), []
        architecture = self.architectures[0]
        for k in self.layers:
            given = {
                name: w[f"layers.{k}.parametrizations.{name}.original"] * factor
                for name, factor in self.factors[k].items()
            }
            currents = (x.flatten(1, 2) @ given["weights"].mT).unflatten(1, x.shape[1:3])
            back = given.get("recurrent_weights")
            a, b, v_th = DT * p[k, "tau_mem"], DT * p[k, "tau_syn"], p[k, "v_th"]
            if self.adapts or not self.standard_reset or not x.is_cuda:
                x = self._by_a_loop(currents, {name: x for (layer, name), x in p.items() if layer == k}, back)
            else:
                zero = torch.zeros_like(v_th)
                start, values = torch.zeros_like(currents[:, :1]).repeat(1, 2, 1, 1), (a, b, zero, v_th, zero)
                how = LIFParameters.program, "super", architecture.alpha, DETACH, torch.is_grad_enabled(), "triton"
                x = fused_sequence.sequence(currents, start, back, torch.stack(values, dim=1), *how)[0]
            hidden.append(x)
        return self._decode(x, w["readout_weights"], w["bias"]), hidden

    @property
    def standard_reset(self) -> bool:
        """Whether all networks have the reset of the kernels."""
        return all(a.reset == "zero" and not a.clear_synapse for a in self.architectures)

    def _decode(self, z: torch.Tensor, weights: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        kernel = self._kernel(z.shape[1])
        if self.task.answers:
            filtered = (kernel @ z.flatten(2)).unflatten(2, z.shape[2:])  # (E, A, B, H)
            logits = torch.einsum("eabh,eah->eba", filtered, self.output @ weights)
            return logits + (bias @ self.output.T)[:, None]
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

    # ---------------------------------------------------------------------------------------------------- training

    def _gradients(self, inputs: torch.Tensor, labels: torch.Tensor) -> tuple:
        """Return losses (E,) and the gradients of weights and neuron parameters."""
        weights, neurons = self.weights.detach().requires_grad_(), self.neurons.detach().requires_grad_()
        logits, hidden = self.forward(inputs, weights, neurons)
        losses = self.losses(logits, labels)
        total = losses.sum()
        if self.training.rate_strength:
            bounds = self.training.rate_low, self.training.rate_high
            for z in hidden:
                off = torch.vmap(lambda spikes: rate_bounds_loss(spikes, *bounds))(z)
                total = total + self.training.rate_strength * off.sum()
        given = [weights, neurons] if self.has_neurons else [weights]
        of_weights, *of_neurons = torch.autograd.grad(total, given)
        return losses.detach(), of_weights, of_neurons[0] if of_neurons else torch.zeros_like(neurons)

    def _update(self, images: torch.Tensor, labels: torch.Tensor, batch: int) -> None:
        """Take one step of Adam with the next `batch` inputs of each network's order."""
        places = self.position + torch.arange(batch, device=self.device)
        which = self.order.index_select(1, places)[self.slot_of_order]
        x = images[self.slot[:, None], which].transpose(1, 2).contiguous().float()  # (E, T, B, I)
        losses, *grads = self._gradients(x, labels[self.slot[:, None], which])
        grads[1] = torch.where(self.shared, grads[1].sum(dim=2, keepdim=True), grads[1])  # one number, many places
        squares = [grads[0].square().sum(dim=1), (grads[1].square() * self.share).sum(dim=(1, 2))]
        self.finite &= losses.isfinite() & squares[0].isfinite() & squares[1].isfinite()
        self.step += 1
        schedule = (1 + torch.cos(math.pi * (self.step - 1) / self.updates)) / 2
        for values, grad, square, moments, rate in zip(
            (self.weights, self.neurons), grads, squares, self.moments, self.rates, strict=True
        ):
            shape = (-1,) + (1,) * (grad.dim() - 1)
            grad = grad * (self.training.largest_gradient / (square.sqrt() + 1e-6)).clamp(max=1).view(shape)
            for moment, beta, power in zip(moments, BETAS, (grad, grad.square()), strict=True):
                moment.mul_(beta).add_(power, alpha=1 - beta)
            corrections = [1 - beta**self.step for beta in BETAS]
            denominator = moments[1].sqrt() / corrections[1].sqrt() + EPSILON
            values -= (rate * schedule / corrections[0]).view(shape) * moments[0] / denominator
        self.position += batch

    def _state(self) -> list[torch.Tensor]:
        return [self.weights, self.neurons, *self.moments[0], *self.moments[1], self.step, self.position, self.finite]

    def _recorded(self, images, labels, batch: int):
        """Return a function that makes one update: on a GPU, a recording of it."""

        def update() -> None:
            self._update(images, labels, batch)

        if self.device.type != "cuda":
            return update
        before = [x.clone() for x in self._state()]

        def restore() -> None:
            for x, start in zip(self._state(), before, strict=True):
                x.copy_(start)

        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):  # kernels are compiled, and memory is found, before recording
                update()
                restore()  # also the position: there may be no further batch
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            update()
        restore()
        return graph.replay

    def train(self, after_epoch) -> None:
        """Train all networks; `after_epoch` is called with nothing after every epoch."""
        training, cells = self.training, self.cells
        images, labels = self.split("train")
        count = labels.shape[1]
        batches = [min(training.batch_size, count - k) for k in range(0, count, training.batch_size)]
        self.updates = training.epochs * len(batches)
        full = [Training(**cell["training"]) for cell in cells]
        self.rates = [torch.tensor([getattr(t, name) for t in full], device=self.device) for name in RATES]
        self.moments = [[torch.zeros_like(x), torch.zeros_like(x)] for x in (self.weights, self.neurons)]
        self.step = torch.zeros((), device=self.device)
        self.position = torch.zeros((), dtype=torch.long, device=self.device)
        self.finite = torch.ones(len(cells), dtype=torch.bool, device=self.device)
        seeds = list(dict.fromkeys(cell["seed"] for cell in cells))
        self.slot_of_order = torch.tensor([seeds.index(cell["seed"]) for cell in cells], device=self.device)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.order = torch.zeros(len(seeds), count, dtype=torch.long, device=self.device)
        updates: dict = {}
        for _ in range(training.epochs):
            self.order.copy_(torch.stack([torch.randperm(count, generator=g) for g in generators]))
            self.position.zero_()
            for batch in batches:
                if batch not in updates:
                    updates[batch] = self._recorded(images, labels, batch)
                updates[batch]()
            after_epoch()

    # --------------------------------------------------------------------------------------------------- measuring

    @torch.no_grad()
    def measure(self, images: torch.Tensor, labels: torch.Tensor, slot: torch.Tensor, elements: float = 1.5e8) -> list:
        """Return for each network what `snnparams.experiments.trial.measure` returns, on inputs (S, N, T, I), its own
        at `slot`."""
        count = labels.shape[1]
        size = max(1, min(500, int(elements / (len(slot) * images.shape[2] * self.hidden_size))))
        right, loss, rates, spikes = [], 0.0, 0.0, 0.0
        for first in range(0, count, size):
            x = images[slot, first : first + size].transpose(1, 2).float()
            y = labels[slot, first : first + size]
            logits, hidden = self.forward(x, self.weights, self.neurons)
            share = y.shape[1] / count
            loss = loss + share * self.losses(logits, y).double()
            right.append((logits > 0) == y.bool() if self.task.answers else logits.argmax(dim=2) == y)
            rates = rates + share * torch.stack([z.mean(dim=(1, 2, 3)) for z in hidden], dim=1).double()
            spikes = spikes + sum(z.sum(dim=(1, 2, 3), dtype=torch.float64) for z in hidden)
        accuracy = torch.cat(right, dim=1).double().mean(dim=1).tolist()
        loss, rates, spikes = (torch.as_tensor(x).tolist() for x in (loss, rates, spikes / count))
        found = []
        for k, a in enumerate(accuracy):
            answers = {"answers": a} if self.task.answers else {}
            mean = sum(a) / len(a) if self.task.answers else a
            found.append({"loss": loss[k], "accuracy": mean, **answers, "rate": rates[k], "spikes": spikes[k]})
        return found

    @property
    def hidden_size(self) -> int:
        """Number of neurons of a layer."""
        return self.neurons.shape[2]

    def split(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the inputs (S, N, T, I) and labels of a split of all tasks, on the device."""
        if name not in self.splits:
            images = torch.stack([_bits(d, name) for d in self.descriptions])
            labels = torch.stack([getattr(_task(d), name).labels for d in self.descriptions])
            self.splits[name] = images.to(self.device), labels.to(self.device).long()
        return self.splits[name]

    def on(self, split: str, most: int | None = None) -> list[dict]:
        """Return how the networks do on a split, or the first inputs of it."""
        images, labels = self.split(split)
        return self.measure(images[:, :most], labels[:, :most], self.slot)

    def disturbed(self) -> list[dict[str, float]]:
        """Return the accuracies on altered test inputs."""
        found: list[dict] = [{} for _ in self.networks]
        pairs = [(int(slot), cell["seed"]) for slot, cell in zip(self.slot.tolist(), self.cells, strict=True)]
        distinct = list(dict.fromkeys(pairs))
        slot = torch.tensor([distinct.index(pair) for pair in pairs], device=self.device)
        labels = torch.stack([_task(self.descriptions[k]).test.labels for k, _ in distinct])
        labels = labels.to(self.device).long()
        tests = {k: _bits(self.descriptions[k], "test").transpose(0, 1).float() for k, _ in distinct}
        changes = {f"warp {f:g}": ("warp", f) for f in (() if self.task.answers else WARPS)}
        changes |= {f"noise {level:g}": ("noise", level) for level in NOISE}
        for name, (kind, number) in changes.items():
            altered = []
            for k, seed in distinct:
                if kind == "warp":
                    x = time_warp(tests[k], number)
                else:
                    generator = torch.Generator().manual_seed(seed)
                    parts = tests[k].split(500, dim=1)  # as a trial alone does it
                    x = torch.cat([add_noise(part, number, generator) for part in parts], dim=1)
                altered.append(x.transpose(0, 1) > 0)
            for row, line in zip(found, self.measure(torch.stack(altered).to(self.device), labels, slot), strict=True):
                row[name] = line["accuracy"]
        return found

    @torch.no_grad()
    def write_back(self) -> None:
        """Give the networks their trained numbers."""
        weights = {name: x.cpu() for name, x in self._parameters(self.weights).items()}
        neurons = self.neurons.cpu()
        for k, network in enumerate(self.networks):
            own = dict(network.named_parameters())
            for name, x in weights.items():
                own[name].copy_(x[k])
            for place, (layer, name) in enumerate(self.slots):
                p, stored = network.layers[layer].p, STORED[name]
                if p.constraint(stored) is not None:
                    original = p.parametrizations[stored].original
                    original.copy_(neurons[k, place] if original.dim() else neurons[k, place, 0])


def run_trials(cells: list[dict], device: torch.device | str = "cuda") -> list[dict]:
    """Return what `snnparams.experiments.trial.run_trial` returns for each of some cells, computed side by side.

    Args:
        cells: all with the same `size_of`.
        device: where to train and measure.

    Raises:
        ValueError: if the cells have not one size.
    """
    if len(sizes := {size_of(cell) for cell in cells}) > 1:
        raise ValueError(f"cells: expected networks of one size, got {len(sizes)}")
    with one_thread():
        try:
            return _run(cells, device)
        finally:
            if torch.device(device).type == "cuda":
                torch.cuda.empty_cache()  # other processes use the same GPU


def _run(cells: list[dict], device: torch.device | str) -> list[dict]:
    trials = SideBySide(cells, device)
    results: list[dict] = [{"failed": reason} for reason in trials.failed]
    if not trials.networks:
        return results
    before = [neuron_values(network) for network in trials.networks]
    curves: list[list[dict]] = []
    trials.train(lambda: curves.append(trials.on("validation")))
    trials.write_back()
    after = [neuron_values(network) for network in trials.networks]
    parts: dict[str, list] = {}
    if cells[0]["test"]:
        parts["train"] = trials.on("train", len(trials.task.test.labels))
        parts["test"] = trials.on("test")
    if cells[0].get("disturbed"):
        parts["disturbed"] = trials.disturbed()
    for k, (place, fine) in enumerate(zip(trials.index, trials.finite.tolist(), strict=True)):
        if not fine:
            results[place] = {"failed": "expected a finite loss and finite gradients, got others"}
            continue
        results[place] = {
            "curve": [epoch[k]["accuracy"] for epoch in curves],
            "validation": curves[-1][k],
            "before": before[k],
            "after": after[k],
            **{name: part[k] for name, part in parts.items()},
        }
    return results

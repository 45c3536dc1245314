"""Many trials of chapter 6's experiment side by side: for a GPU, which one small network would leave idle.

A trial alone is `snnparams.experiments.trial.run_trial`. This computes the same for E networks of one size at once:
equal initial numbers, batches in the same order, the same loss, gradients shortened for each network by itself, Adam
with a learning rate for each. Results differ by rounding only, and by what rounding does to a training that amplifies
it. All tensors have the axis of the networks in front; `snnparams.kernels.fused_sequence` computes it as one more axis.

On a GPU, one update is recorded once (a CUDA graph) and then repeated: its hundred small kernels would take longer to
launch than to run. On a CPU a stack of two costs a tenth or two less than each alone, of four about as much, and more
networks at once cost more: what they keep for the backward pass leaves the caches.
"""

import math

import torch
from benefit_stacked import RATES, STORED, Stacked, bits, size_of, task_of

from snnparams.experiments.disturbances import add_noise, time_warp
from snnparams.experiments.trial import NOISE, WARPS, Training, neuron_values, one_thread
from snnparams.training.regularisation import rate_bounds_loss

BETAS, EPSILON = (0.9, 0.999), 1e-8  # of Adam


class SideBySide(Stacked):
    """The networks of some cells, see `Stacked`, and their training."""

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
            images = torch.stack([bits(d, name) for d in self.descriptions])
            labels = torch.stack([getattr(task_of(d), name).labels for d in self.descriptions])
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
        labels = torch.stack([task_of(self.descriptions[k]).test.labels for k, _ in distinct])
        labels = labels.to(self.device).long()
        tests = {k: bits(self.descriptions[k], "test").transpose(0, 1).float() for k, _ in distinct}
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
                p, stored = self._parameters_of(network, layer), STORED[name]
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

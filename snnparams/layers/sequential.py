"""Networks in one line: `Sequential` hands states along, `OverTime` applies what knows no time to every step.

Time is the first axis of what layers take, (T, B, ...). Explained in "Using the package".
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import nullcontext
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from snnparams.layers.attributes import Attributes
from snnparams.layers.calls import refuse_plain_sequential
from snnparams.layers.cells import Cell, RecurrentCell
from snnparams.layers.chunks import check_chunk, over_chunks, steps_of
from snnparams.layers.contents import (
    check_time_step,
    counts_steps,
    encodes,
    hands_no_state,
    normalises_by_all_steps,
    populations,
)
from snnparams.layers.population import Population
from snnparams.layers.sequences import Lengths, check_lengths, over_lengths, refuse_packed, without_padding
from snnparams.layers.states import carries_state

# Modules of PyTorch that count their axes from the batch on, by the files that define them, and others. Those that work
# on the last axis, or on each number, take sequences as they are.
FILES = ("conv", "batchnorm", "instancenorm", "pooling", "padding", "flatten", "fold", "upsampling", "pixelshuffle")
TIMELESS = (
    *(nn.GroupNorm, nn.LocalResponseNorm, nn.CrossMapLRN2d, nn.ChannelShuffle),
    *(nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.FeatureAlphaDropout),
    *(nn.Softmax, nn.Softmin, nn.LogSoftmax, nn.Softmax2d, nn.GLU),
)
AS_THEY_ARE = (nn.Flatten, nn.Unflatten, nn.Identity)  # take numbers of any type, and compute nothing


def _is_timeless(module: nn.Module) -> bool:
    if isinstance(module, nn.Sequential) and not isinstance(module, (Sequential, OverTime)):
        return any(map(_is_timeless, module))
    if isinstance(module, nn.PReLU):  # with one number it takes what it is given as it is
        return module.num_parameters > 1
    files = [kind.__module__ for kind in type(module).__mro__]
    return isinstance(module, TIMELESS) or any(f"torch.nn.modules.{name}" in files for name in FILES)


def _cast_spikes(module: nn.Module, x: torch.Tensor, network: nn.Module) -> torch.Tensor:
    """Return spikes of type bool or uint8 as numbers, where modules of PyTorch alone compute with them.

    They are of the type of the module, or if it has none of that of the network. A module of a user may want bytes.
    """
    if x.dtype not in (torch.bool, torch.uint8) or isinstance(module, AS_THEY_ARE):
        return x
    kinds = {type(part) for part in module.modules()} - {OverTime}
    if not all(kind.__module__.startswith("torch.nn.") for kind in kinds):
        return x
    for part in (module, network):
        for tensor in (*part.parameters(), *part.buffers()):
            if tensor.is_floating_point():
                return x.to(tensor.dtype)
    return x.to(torch.get_default_dtype())


def _rows_that_count(lengths: list[int], x: torch.Tensor) -> torch.Tensor:
    """Return where the steps that count stand when time and batch are one axis.

    A mask would leave their number to its values, which no compiler knows.
    """
    batch = x.shape[1]
    rows = [torch.arange(row, length * batch, batch, device=x.device) for row, length in enumerate(lengths)]
    return torch.cat(rows).sort().values


def _over_time(module, x: torch.Tensor, lengths: Lengths | None, name: str) -> torch.Tensor:
    """Apply a module to all steps at once: time and batch become one axis."""
    if x.dim() < 3 or x.layout != torch.strided:
        got = f"{tuple(x.shape)}" if x.layout == torch.strided else f"the layout {x.layout}"
        raise ValueError(f"input: expected a dense tensor of shape (T, B, ...) for {name}, got {got}")
    if lengths is None:
        output = module(x.flatten(0, 1))
        expected = x.shape[0] * x.shape[1]
    else:
        rows = _rows_that_count(check_lengths(lengths, x), x)
        output = module(x.flatten(0, 1)[rows])
        expected = len(rows)
    if not isinstance(output, torch.Tensor) or output.dim() < 1 or len(output) != expected:
        got = str(tuple(output.shape)) if isinstance(output, torch.Tensor) else type(output).__name__
        raise ValueError(f"{name}: expected it to return a tensor of shape ({expected}, ...), got {got}")
    if lengths is None:
        return output.unflatten(0, x.shape[:2])
    whole = output.new_zeros(x.shape[0] * x.shape[1], *output.shape[1:])
    return whole.index_put((rows,), output).unflatten(0, x.shape[:2])


class OverTime(nn.Sequential):
    """Apply modules that know no time to every step of a sequence.

    All steps are computed at once, as one batch of T * B: of a contiguous tensor no step is copied, and a normalisation
    sees all of them.

    Args:
        modules: one or more, applied one after the other, none of which carries a state.

    Called with a tensor (T, B, ...), it gives the modules (T * B, ...) and returns (T, B, ...). With `lengths`, see
    `snnparams.layers.sequences`, the modules see only the steps that count, as a copy, and the others are zero in what
    is returned.

    Raises:
        TypeError: on building, if there is no module, or one carries a state.
        ValueError: on calling, if the input has fewer than three axes or is sparse, or the modules return something
            else than as many rows as they were given.
    """

    def __init__(self, *modules: nn.Module) -> None:
        for module in modules:
            if not isinstance(module, nn.Module):
                raise TypeError(f"modules: expected modules, got {type(module).__name__}")
            if carries_state(module) or populations(module):
                raise TypeError(
                    f"modules: expected modules that know no time, got {type(module).__name__}, which carries a state "
                    "from step to step; give it the whole sequence"
                )
        if not modules:
            raise TypeError("modules: expected at least one, got none")
        super().__init__(*modules)

    def forward(self, input: torch.Tensor, lengths: Lengths | None = None) -> torch.Tensor:
        """Return the outputs (T, B, ...)."""
        if not isinstance(input, torch.Tensor):
            raise TypeError(f"input: expected a tensor of shape (T, B, ...), got {type(input).__name__}")

        def all_modules(x):
            for module in self:
                x = module(_cast_spikes(module, x, self))
            return x

        return _over_time(all_modules, input, lengths, f"OverTime({', '.join(type(m).__name__ for m in self)})")


class Sequential(Attributes, nn.Sequential):
    """Modules one after the other, in which tensors go from module to module and states from call to call.

    ::

        model = Sequential(
            nn.Conv2d(2, 16, 3), LIF(channels=16), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(784, 10), LI()
        )
        voltages, state = model(spikes)  # (T, B, 2, 16, 16)
        voltages, state = model(more_spikes, state)  # goes on where it stopped

    Args:
        modules: any modules, or one dictionary of names and modules, as of `nn.Sequential`. A module with an argument
            `state` (a cell, a layer, a `Sequential`, one of your own) is given its state and returns a tensor and the
            new state; any other returns a tensor. Modules of PyTorch that count their axes from the batch on
            (convolutions, pooling, padding, upsampling, normalisations of images, `Flatten`, `Unflatten`, dropout of
            whole channels, `Softmax` and its kin, `GLU`, `PReLU` of channels) are applied to every step, as by
            `OverTime`, so that a `dim` of theirs counts without time; put others that do into one. Cells go with cells,
            one step per call, and layers with layers.
        chunk: number of steps, or None. With it the network computes so many steps at once, and the backward pass
            computes them again from the states before them, see `snnparams.layers.chunks`: besides input and output
            only those states are kept. Outputs and gradients are the same, if no module of your own mixes time steps.

    Called with a tensor (T, B, ...), or for cells (B, ...), and optionally a state, it returns the output of the last
    module and the state: a tuple with the state of each module, `()` for those without. Input and modules without an
    axis for the batch work as the modules do. With `lengths`, see `snnparams.layers.sequences`, the output is zero
    behind the end of each sequence, and the states are those after the last step of each. A module of your own that
    mixes time steps then finds zeros there.

    Raises:
        TypeError: on calling, if cells and layers are mixed, a module returns something else, an `nn.Sequential` holds
            what carries a state, or the state is no tuple.
        ValueError: on building, if `chunk` is no positive integer, or modules differ in their time step; on calling, if
            the state has another number of parts, or one is given where a module would lose its own, or what a module
            raises; with `chunk`, if there are `lengths`, cells, or a normalisation over all steps of a batch in
            training mode.
    """

    checked = MappingProxyType({"chunk": lambda network, steps: check_chunk(steps)})
    chunk: int | None = None

    def __init__(self, *modules: Any, chunk: int | None = None) -> None:
        if len(modules) == 1 and isinstance(modules[0], dict):
            modules = (OrderedDict(modules[0]),)  # nn.Sequential takes no other dictionary
        super().__init__(*modules)
        self.chunk = chunk
        check_time_step(*self)

    def __getitem__(self, index):
        """Return a module, or of a slice a network of some, which computes as many steps at once."""
        found = super().__getitem__(index)
        if isinstance(index, slice):
            found.chunk = self.chunk
        return found

    def __setitem__(self, index, module: nn.Module) -> None:
        """Put a module in the place of another one."""
        check_time_step(*(m for m in self if m is not self[index]), module)
        super().__setitem__(index, module)

    def append(self, module: nn.Module) -> Sequential:
        """Add a module at the end."""
        check_time_step(*self, module)
        super().append(module)
        return self

    def insert(self, index: int, module: nn.Module) -> Sequential:
        """Add a module at a place."""
        check_time_step(*self, module)
        super().insert(index, module)
        return self

    def forward(
        self, input: torch.Tensor, state: tuple | None = None, lengths: Lengths | None = None
    ) -> tuple[torch.Tensor, tuple]:
        """Return the output of the last module and the states of all."""
        refuse_plain_sequential(self)
        refuse_packed(input)
        if not isinstance(input, torch.Tensor):
            raise TypeError(f"input: expected a tensor, got {type(input).__name__}")
        if self.chunk is None:
            return self._whole(input, state, lengths)
        self._check_chunks(lengths)
        return over_chunks(self._whole, input, state, self.chunk, random=True)

    def _check_chunks(self, lengths: Lengths | None) -> None:
        """Refuse what does not give the same in chunks."""
        if lengths is not None:
            raise ValueError(f"lengths: expected None where chunk={self.chunk}; give chunk to the layers instead")
        if self._is_of_cells():
            raise ValueError(f"chunk={self.chunk}: expected layers, which compute whole sequences, got cells")
        for part in self._parts():
            if encodes(part):
                raise ValueError(
                    f"chunk={self.chunk}: expected spikes (T, B, ...), got {type(part).__name__} to make them"
                )
        for name, module in self.named_modules():
            if normalises_by_all_steps(module):
                raise ValueError(
                    f"chunk={self.chunk}: expected no normalisation over all steps, got module {name} "
                    f"({type(module).__name__}) in training mode; give chunk to the layers instead, or call its .eval()"
                )

    def _whole(self, input: torch.Tensor, state: tuple | None, lengths: Lengths | None = None) -> tuple[Any, tuple]:
        """Return the output of the last module and the states of all, without chunks."""
        given = self._states_of(state)
        stepwise = self._is_of_cells()
        if lengths is not None:
            if stepwise:
                raise ValueError("lengths: expected layers, which compute whole sequences, got cells")
            lengths = check_lengths(lengths, input)
            input = without_padding(input, lengths)
        x, new = input, []
        for (name, module), own in zip(self._modules.items(), given, strict=True):
            x, after = self._call(f"module {name} ({type(module).__name__})", module, x, own, lengths, stepwise)
            new.append(after)
        return x if lengths is None else without_padding(x, lengths), tuple(new)

    def initial_state(self, input: torch.Tensor) -> tuple:
        """Return the state in which it begins, see `snnparams.layers.states.initial`."""
        stepwise = self._is_of_cells()
        encoded = any(map(encodes, self._parts()))  # images have no steps, and may be encoded at random
        x, found = input if stepwise or encoded else steps_of(input, 0, 1), []
        modes = {module: module.training for module in self.modules()}
        self.eval()
        try:
            with torch.no_grad(), torch.random.fork_rng([x.device] * x.is_cuda) if encoded else nullcontext():
                for (name, module), own in zip(self._modules.items(), self._states_of(None), strict=True):
                    begin = getattr(module, "initial_state", None)
                    if carries_state(module) and begin is None:
                        raise TypeError(f"module {name} ({type(module).__name__}): expected a method initial_state")
                    found.append(() if begin is None else begin(x))
                    x, _ = self._call(f"module {name} ({type(module).__name__})", module, x, own, None, stepwise)
        finally:
            for module, training in modes.items():
                module.training = training
        return tuple(found)

    def _is_of_cells(self) -> bool:
        """Return whether it computes one step per call."""
        inside = list(self._parts())
        cells = [m for m in inside if isinstance(m, (Cell, RecurrentCell))]
        layers = [m for m in inside if (counts_steps(m) or isinstance(m, OverTime)) and m not in cells]
        if cells and layers:
            got = f"{type(cells[0]).__name__} and {type(layers[0]).__name__}"
            raise TypeError(f"modules: expected either cells, for one step, or layers, for whole sequences, got {got}")
        return bool(cells)

    def _parts(self) -> Iterator[nn.Module]:
        """Yield its modules, those of a `Sequential` within it as if they were its own."""
        for module in self:
            yield from module._parts() if type(module) is Sequential else [module]

    def _states_of(self, state: tuple | None) -> tuple:
        if state is None:
            return (None,) * len(self)
        if not isinstance(state, tuple):
            raise TypeError(
                f"state: expected a tuple with the state of each module, or None, got {type(state).__name__}"
            )
        if len(state) != len(self):
            raise ValueError(f"state: expected {len(self)} parts, one for each module, got {len(state)}")
        for (name, module), own in zip(self._modules.items(), state, strict=True):
            if carries_state(module):
                continue
            what = f"module {name} ({type(module).__name__})"
            if own not in ((), None):
                raise ValueError(f"state: expected () for {what}, which has none, got {type(own).__name__}")
            if inside := populations(module):
                raise ValueError(
                    f"{what}: expected an argument `state` of what holds a {inside[0]} and is to go on from a given "
                    "state, got none: it would begin anew; call it without a state, or let it take and return one"
                )
        return state

    def _call(self, what: str, module, x, state, lengths, stepwise: bool) -> tuple[torch.Tensor, Any]:
        """Return the output of one module and its state."""
        if not carries_state(module):
            if hands_no_state(module):
                raise TypeError(f"{what}: expected a Sequential of snnparams, which hands states along, got PyTorch's")
            x = _cast_spikes(module, x, self)
            if isinstance(module, OverTime):
                x = module(x, lengths)
            elif not stepwise and _is_timeless(module):
                x = _over_time(module, x, lengths, what)
            else:
                x = module(x)
            if not isinstance(x, torch.Tensor):
                expected = "a tensor, or an argument `state` if it returns one as well"
                raise TypeError(f"{what}: expected {expected}, got {type(x).__name__}")
            return x, ()
        if state == ():
            state = None
        if lengths is None:
            returned = module(x, state)
        elif "lengths" in inspect.signature(module.forward).parameters:
            returned = module(x, state, lengths)
        else:
            exact = any(isinstance(part, Population) and part._exact for part in module.modules())
            returned = over_lengths(module, x, state, lengths, apart=exact)
        if not (isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[0], torch.Tensor)):
            raise TypeError(f"{what}: expected it to return a tensor and its state, got {type(returned).__name__}")
        return returned

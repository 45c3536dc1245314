"""What a user may get wrong across the public functions is refused at once, in words about what was given."""

import math
import pickle
import re

import numpy as np
import pytest
import torch
from torch import nn

import snnparams as sp
from snnparams.data.spoken_digits import mel_levels
from snnparams.experiments import experiment
from snnparams.layers.initialisation import voltage_variance
from snnparams.parameters.constraints import Decay, Interval

X = torch.rand(5, 2, 3, generator=torch.Generator().manual_seed(0))


def network():
    return sp.Sequential(nn.Linear(3, 4), sp.LIF(), nn.Linear(4, 2), sp.LI())


def fit(**given):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 2), nn.LogSoftmax(1))
    split, model = sp.Split(torch.rand(8, 6), torch.arange(8) % 2), given.get("model", model)
    how = {"model": model, "train_split": split, "test_split": split, "epochs": 1, "progress": False}
    parameters = model.parameters() if isinstance(model, nn.Module) else [nn.Parameter(X)]
    how["optimizer"] = torch.optim.SGD(parameters, lr=0.1)
    return sp.fit(**how | given)


def train(**given):
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 2), nn.LogSoftmax(1))
    split, model = sp.Split(torch.rand(8, 6), torch.arange(8) % 2), given.pop("model", model)
    how = {"split": split, "optimizer": torch.optim.SGD(model.parameters(), lr=0.1), "progress": False}
    return sp.train(model, **how | given)


SQUARE = sp.Split(torch.rand(5, 5, 3), torch.arange(5) % 2)  # as many sequences as steps: shapes show nothing


def decoded(out):
    return out[0].amax(0).log_softmax(1)


CASES = [
    (lambda: network()([1.0]), TypeError, "input: expected a tensor, got list"),
    (lambda: network()(None), TypeError, "input: expected a tensor, got NoneType"),
    (lambda: network()(X, lengths=5), TypeError, "lengths: expected one integer for each sequence, got int"),
    (lambda: sp.sequences.last([1], [1]), TypeError, "input: expected a tensor (T, B, ...) where lengths are given"),
    (lambda: sp.states.select(sp.LIF()(X)[1], "a"), TypeError, "rows: expected several indices, a mask (B,) or a"),
    (lambda: sp.LIF(size=3)(torch.rand(5, 2, 7)), ValueError, "input: expected a population of shape (3,), the size"),
    (lambda: sp.LIFCell(size=(3, 4))(torch.rand(2, 4, 3)), ValueError, "input: expected a population of shape (3, 4)"),
    (lambda: sp.Delay(2e-3, size=3)(torch.rand(5, 2, 7)), ValueError, "input: expected a population of shape (3,)"),
    (lambda: sp.LIF(dtype=torch.int64), TypeError, "dtype: expected a floating-point type such as torch.float32, got"),
    (
        lambda: sp.LIF(dtype="float32"),
        TypeError,
        "dtype: expected a floating-point type such as torch.float32, got '",
    ),
    (lambda: sp.LIF(dtype=torch.complex64), TypeError, "dtype: expected a floating-point type such as torch.float32"),
    (lambda: sp.Delay(1e-3, dtype=torch.int64), TypeError, "dtype: expected a floating-point type such as torch.float"),
    (lambda: Interval(2, 1), ValueError, "interval: expected finite bounds with low < high, got 2 and 1"),
    (lambda: Interval("a", 1), ValueError, "interval: expected finite bounds with low < high, got 'a' and 1"),
    (lambda: Interval(0, math.inf), ValueError, "interval: expected finite bounds with low < high, got 0 and inf"),
    (lambda: sp.poisson_encode(X, 10, "100"), ValueError, "f_max: expected a positive rate of at most 1000 1/s, one"),
    (lambda: sp.record("x").__enter__(), TypeError, "model: expected a module, got str"),
    (lambda: sp.parameter_groups("m", lr=0.1), TypeError, "model: expected a module, got str"),
    (
        lambda: sp.parameter_groups(nn.Linear(2, 2), lr=0.1, neuron_lr="x"),
        ValueError,
        "neuron_lr: expected a finite number of at least 0, got 'x'",
    ),
    (lambda: sp.Ensemble(sp.LIF()), TypeError, "members: expected a list of modules, got LIF"),
    (lambda: sp.LIF().p.share("v_th", "x"), TypeError, "other: expected NeuronParameters, as layer.p, got str"),
    (lambda: sp.reach_rate_("w", lambda: X, rate=10), TypeError, "weights: expected a list of tensors, got str"),
    (lambda: sp.reach_rate_(X, lambda: X, rate=10), TypeError, "weights: expected a list of tensors, got Tensor"),
    (lambda: sp.reach_rate_([X], 3, rate=10), TypeError, "run: expected a function that computes spikes, got int"),
    (lambda: experiment.grid(a="abc"), TypeError, "a: expected a list of values, got 'abc'"),
    (lambda: experiment.grid(a=3), TypeError, "a: expected a list of values, got 3"),
    (lambda: sp.activity(torch.rand(0, 2, 2)), ValueError, "spikes: expected shape (T, B, ...) without an empty axis"),
    (
        lambda: sp.lif_feed_forward_step("x", sp.LIFFeedForwardState(X, X)),
        TypeError,
        "input: expected a tensor of shape (B, ...), got str",
    ),
    (lambda: fit(optimizer=None), TypeError, "optimizer: expected one of torch.optim, got NoneType"),
    (lambda: fit(optimizer=torch.optim.SGD), TypeError, "optimizer: expected one of torch.optim, got type"),
    (
        lambda: fit(optimizer=torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)),
        ValueError,
        "optimizer: expected parameters of the model, got none of them; was it made for another one?",
    ),
    (lambda: sp.evaluate(3, SQUARE), TypeError, "model: expected a module, got int"),
    (lambda: sp.learned_values(None), TypeError, "model: expected a module, got NoneType"),
    (lambda: sp.gradient_to_value(None), TypeError, "model: expected a module, got NoneType"),
    (lambda: sp.zero_gradients(None), TypeError, "model: expected a module, got NoneType"),
    (lambda: sp.validate_neuron_parameters(None), TypeError, "model: expected a module, got NoneType"),
    (lambda: train(optimizer=None), TypeError, "optimizer: expected one of torch.optim, got NoneType"),
    (
        lambda: train(optimizer=torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)),
        ValueError,
        "optimizer: expected parameters of the model, got none of them; was it made for another one?",
    ),
    *[
        (call, ValueError, "model: expected one that takes the batch first, as a Split has it, got layers, which take")
        for model in (network, lambda: sp.LIFRecurrent(3, 2), lambda: sp.Ensemble([network(), network()]))
        for call in (
            lambda model=model: train(model=model(), split=SQUARE, decode=decoded),
            lambda model=model: fit(model=model(), train_split=SQUARE, test_split=SQUARE, decode=decoded),
            lambda model=model: sp.evaluate(model(), SQUARE, decode=decoded),
        )
    ],
    (
        lambda: sp.reach_rate_([X], lambda: sp.LIF()(X), rate=10),
        TypeError,
        "run: expected it to return spikes, got t",
    ),
    (
        lambda: sp.reach_rate_([X], lambda: 0 * X, rate=20, dt=0.01),
        sp.RateError,
        "rate: expected 20 1/s within 10%, got",
    ),
    (lambda: sp.states.to(sp.LIF()(X)[1], dtype=torch.int64), TypeError, "dtype: expected a floating-point type, got"),
    (lambda: Decay(10.0), ValueError, "dt: expected a time step in s, below 1 s, got 10 s"),
    (lambda: Decay(-1.0), ValueError, "dt: expected a positive, finite time step in s, got -1"),
    (lambda: voltage_variance(torch.tensor(0.4), torch.tensor(2.0)), ValueError, "tau_mem: expected at least one time"),
    (
        lambda: voltage_variance(2.0, torch.tensor([3.0, 0.4])),
        ValueError,
        "tau_syn: expected at least one time step",
    ),
    (
        lambda: sp.parameter_groups(network(), 0.1, {"tau_mem": 0.1}),
        ValueError,
        "neuron_lr: expected a model that learns some, got 'tau_mem'",
    ),
    (lambda: sp.tasks.smooth_random_manifolds(steps=0), ValueError, "steps: expected a positive integer, got 0"),
    (
        lambda: mel_levels([torch.zeros(2, 900)]),
        ValueError,
        "waves: expected finite numbers of shape (samples,)",
    ),
    (
        lambda: mel_levels([torch.full((900,), math.nan)]),
        ValueError,
        "waves: expected finite numbers of shape",
    ),
    (
        lambda: mel_levels([np.zeros(900)]),
        TypeError,
        "waves: expected tensors of real numbers, got nd",
    ),
    (lambda: mel_levels([X[0, 0]], steps=0), ValueError, "steps: expected a positive integer, got 0"),
    (lambda: mel_levels([X[0, 0]], decibel=-1), ValueError, "decibel, sample_rate: expected positive, finite numbers"),
    (lambda: mel_levels([X[0, 0]], sample_rate=0), ValueError, "decibel, sample_rate: expected positive, finite num"),
    (lambda: fit(model=nn.Linear), TypeError, "model: expected a module, got type"),
    (lambda: fit(model=lambda x: x), TypeError, "model: expected a module, got function"),
    (lambda: fit(decode="x"), TypeError, "decode: expected a function of what the model returns, got str"),
    (lambda: fit(generator=3), TypeError, "generator: expected a torch.Generator, got int"),
    (
        lambda: fit(callbacks=print),
        TypeError,
        "callbacks: expected a list of functions, got builtin_func",
    ),
    (lambda: fit(restore_best="yes"), TypeError, "restore_best: expected True or False, got 'yes'"),
]


@pytest.mark.parametrize(("act", "error", "message"), CASES, ids=[str(k) for k in range(len(CASES))])
def test_refused_in_words_about_what_was_given(act, error, message):
    with pytest.raises(error, match=re.escape(message)):
        act()


def test_a_size_may_have_ones_and_fewer_axes():
    assert sp.LIF(size=(3, 1, 1))(torch.rand(5, 2, 3, 4, 4))[0].shape == (5, 2, 3, 4, 4)
    assert sp.LIF(size=3)(torch.rand(5, 2, 6, 3))[0].shape == (5, 2, 6, 3)


@pytest.mark.parametrize(
    "write", [lambda f: f.write(b"x"), lambda f: pickle.dump({"a": print}, f, protocol=2), lambda f: None]
)
def test_a_checkpoint_that_is_none_is_named(write, tmp_path):
    path = tmp_path / "run.pt"
    with path.open("wb") as file:
        write(file)
    with pytest.raises(ValueError, match=re.escape(f"checkpoint: expected a file that fit has written, got {path}")):
        fit(checkpoint=path)
    torch.save({"a": 1}, path)
    with pytest.raises(ValueError, match=re.escape(f"got {path}, which has other entries")):
        fit(checkpoint=path)

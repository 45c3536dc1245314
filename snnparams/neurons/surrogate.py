"""Spike functions: a hard threshold forward, a smooth surrogate derivative backward; and the adjoint beside them.

How a gradient is computed is an object, `gradient=` of cells and layers: a `Surrogate`, or `Adjoint()`.

Every function here but one emits a spike exactly where the membrane is above threshold, so the forward pass is the
same for all of them. They differ only in the derivative that backpropagation uses in place of the step's true
one, which is zero everywhere but at the threshold. The exception, `sigmoid`, is smooth forward too, and its derivative
is the true one: networks of such graded spikes are there to check gradients. Explained in chapter 1.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import forward_ad

from snnparams.parameters.settings import is_number

Derivative = Callable[[torch.Tensor, float], torch.Tensor]


def _heaviside(x: torch.Tensor, alpha: float) -> torch.Tensor:
    return torch.zeros_like(x)


def _super(x: torch.Tensor, alpha: float) -> torch.Tensor:
    return 1 / (1 + alpha * x.abs()) ** 2


def _triangle(x: torch.Tensor, alpha: float) -> torch.Tensor:
    return alpha * torch.relu(1 - x.abs())


def _tanh(x: torch.Tensor, alpha: float) -> torch.Tensor:
    return 1 - torch.tanh(alpha * x) ** 2


def _circ(x: torch.Tensor, alpha: float) -> torch.Tensor:
    return (1 + (x / alpha) ** 2) ** -1.5


def _heavi_erfc(x: torch.Tensor, alpha: float) -> torch.Tensor:
    return 2 / math.sqrt(math.pi) * torch.exp(-((alpha * x) ** 2))


def _sigmoid(x: torch.Tensor, alpha: float) -> torch.Tensor:
    s = torch.sigmoid(alpha * x)
    return alpha * s * (1 - s)


DERIVATIVES: dict[str, Derivative] = {
    "heaviside": _heaviside,
    "super": _super,
    "triangle": _triangle,
    "tanh": _tanh,
    "circ": _circ,
    "heavi_erfc": _heavi_erfc,
    "sigmoid": _sigmoid,
}
"""Surrogate derivative of each spike function, by the name that `method` takes."""


def _check_function(name: str, function: Derivative, alpha: float) -> None:
    """Call a function of a user once: numbers of another shape would be spread over all neurons without a word."""
    x = torch.linspace(-1.0, 1.0, 6).reshape(2, 3)
    with torch.no_grad():
        got = function(x, alpha)
    if not isinstance(got, torch.Tensor) or got.shape != x.shape:
        shape = f"shape {tuple(got.shape)}" if isinstance(got, torch.Tensor) else type(got).__name__
        raise ValueError(f"{name}: expected a tensor of the shape of x, here {tuple(x.shape)}, got {shape}")


@dataclasses.dataclass(frozen=True)
class Adjoint:
    """Exact gradients, by the adjoint method: see `snnparams.kernels.adjoint`. For cells and layers as a whole."""


@dataclasses.dataclass(frozen=True, init=False)
class Surrogate:
    """A spike function: what a membrane emits, and the derivative that stands in for the spike's own.

    Called with the distance of membranes to their threshold, a tensor of any shape, it returns their spikes.

    Args:
        method: its name, see `snnparams.surrogate_derivative`; or a name for functions of your own.
        alpha: its shape parameter, positive. None for the default: 100, but 1 for "super" and for your own.
        derivative: your own: a function of the distance to the threshold and of alpha, both of which it may use, that
            returns the derivative for the backward pass, of the same shape. What else it reads is to stay as it is.
        value: a function of the same arguments that returns the spikes; None for 1 above the threshold, else 0.

    Raises:
        ValueError: if the name is unknown, or one that is taken where a derivative is given; if alpha is not positive
            and finite; if there is a value without a derivative; or if a function returns another shape than x has.
        TypeError: if alpha is no number, or a function is none.
    """

    method: str
    alpha: float
    derivative: Derivative | None
    value: Derivative | None
    code: str = dataclasses.field(compare=False)  # its name for the fused kernels
    refusal: str = dataclasses.field(compare=False)  # why they cannot compute it, or ""

    def __init__(
        self,
        method: str = "super",
        alpha: float | None = None,
        *,
        derivative: Derivative | None = None,
        value: Derivative | None = None,
    ) -> None:
        for name, function in (("derivative", derivative), ("value", value)):
            if function is not None and not callable(function):
                raise TypeError(f"{name}: expected a function of x and alpha, got {type(function).__name__}")
        if value is not None and derivative is None:
            raise ValueError("derivative: expected that of the value that is given, got None")
        if not isinstance(method, str):
            raise TypeError(f"method: expected the name of a spike function, got {type(method).__name__}")
        if method == "adjoint":
            raise ValueError("method='adjoint': expected a spike function; for the adjoint method use Adjoint()")
        if derivative is not None and method in DERIVATIVES:
            raise ValueError(f"method={method!r}: expected a name of its own for a function of your own")
        if derivative is None and method not in DERIVATIVES:
            raise ValueError(f"unknown spike function method={method!r}; expected one of {', '.join(DERIVATIVES)}")
        if alpha is None:
            alpha = 1.0 if method == "super" or derivative is not None else 100.0
        code, refusal = method, ""
        if derivative is not None:
            from snnparams.neurons.spike_programs import code_of  # which imports this module

            code, refusal = code_of(derivative, value)
            for name, function in (("derivative", derivative), ("value", value)):
                if function is not None:
                    _check_function(name, function, check_alpha(alpha))
        parts: dict[str, Any] = {"method": method, "alpha": check_alpha(alpha), "derivative": derivative}
        parts |= {"value": value, "code": code, "refusal": refusal}
        for name, part in parts.items():
            object.__setattr__(self, name, part)

    def __setstate__(self, state: dict[str, Any]) -> None:
        own = {name: state[name] for name in ("derivative", "value")}
        Surrogate.__init__(self, state["method"], state["alpha"], **own)

    def __repr__(self) -> str:
        own = "" if self.derivative is None else f", derivative={getattr(self.derivative, '__name__', self.derivative)}"
        own += "" if self.value is None else f", value={getattr(self.value, '__name__', self.value)}"
        return f"Surrogate({self.method!r}, alpha={self.alpha:g}{own})"

    def fused(self) -> str:
        """Return its name for the fused kernels, which compute what a function of a user computed when this was built.

        Raises:
            ValueError: if that function computes something else by now, as one that reads a number that has changed.
        """
        if self.derivative is not None and not torch.compiler.is_compiling():
            from snnparams.neurons.spike_programs import code_of

            if code_of(self.derivative, self.value)[0] != self.code:
                raise ValueError(
                    f"{self!r}: expected functions that compute what they did when it was built, got others; build a "
                    "new one, or learn or set the slope of each neuron, as snnparams.neurons.SlopeLIF does"
                )
        return self.code

    @property
    def graded(self) -> bool:
        """Whether spikes may be other numbers than 0 and 1."""
        return self.method == "sigmoid" or self.value is not None

    def slope(self, x: torch.Tensor) -> torch.Tensor:
        """Return the derivative that the backward pass uses, of the shape of x."""
        return (self.derivative or DERIVATIVES[self.method])(x, self.alpha)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the spikes, of the shape of x."""
        if self.method == "heaviside":  # nothing to propagate, so nothing to keep for the backward pass
            return (x > 0).to(x.dtype)
        if self.method == "sigmoid":
            return torch.sigmoid(self.alpha * x)
        given = self.alpha, self.derivative or DERIVATIVES[self.method], self.value
        forward_mode = forward_ad._current_level >= 0
        if not (torch.is_grad_enabled() or forward_mode):  # nobody will ask for the derivative
            return _Threshold.forward(x, *given)
        return (_ForwardThreshold if forward_mode else _Threshold).apply(x, *given)


Gradient = Surrogate | Adjoint


def check_alpha(alpha: Any) -> float:
    """Return the shape parameter of a spike function as a float.

    Raises:
        ValueError: if it is not positive and finite.
        TypeError: if it is no number.
    """
    given = type(alpha).__name__
    if isinstance(alpha, torch.Tensor) and alpha.dim() == 0 and not alpha.requires_grad:
        alpha = alpha.item()
    if not is_number(alpha):
        raise TypeError(f"alpha: expected a number, which is not learned, got {given}")
    number = float(alpha)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"alpha: expected a positive, finite number, got {alpha}")
    return number


def named(method: str, alpha: float | None = None) -> Gradient:
    """Return what Norse's spelling in the parameters of a neuron names: a spike function, or "adjoint"."""
    return Adjoint() if method == "adjoint" else Surrogate(method, alpha)


def gradient_of(p: Any, gradient: Gradient | None = None) -> Gradient:
    """Return how the gradient of spikes is computed.

    Args:
        p: neuron parameters, which may say it as well: `gradient`, or Norse's `method` and `alpha`.
        gradient: what was asked for; None for what the parameters say.

    Raises:
        TypeError: if it is neither a surrogate nor the adjoint.
        ValueError: if both say it and differ.
    """
    if gradient is not None and not isinstance(gradient, Gradient):
        hint = f"; use Surrogate({gradient!r})" if isinstance(gradient, str) and gradient in DERIVATIVES else ""
        raise TypeError(f"gradient: expected a Surrogate or Adjoint(), got {gradient!r}{hint}")
    own = p.gradient if hasattr(p, "gradient") else named(p.method, p.alpha)
    if gradient is None:
        return own
    if getattr(p, "gradient_is_given", True) and own != gradient:
        raise ValueError(f"gradient: expected {own!r}, as method and alpha of the parameters say, got {gradient!r}")
    return gradient


def surrogate_of(p: Any, gradient: Gradient | None = None) -> Surrogate:
    """Return the spike function of a time step, see `gradient_of`.

    Raises:
        ValueError: if it is the adjoint method, which is none.
    """
    found = gradient_of(p, gradient)
    if isinstance(found, Adjoint):
        raise ValueError(
            "gradient=Adjoint(): expected a surrogate; the adjoint method is one of layers and cells as a whole. Use "
            "LIF, LIFRecurrent, LIFCell or LIFRecurrentCell, or a Surrogate"
        )
    return found


def surrogate_derivative(x: torch.Tensor, method: str = "super", alpha: float | None = None) -> torch.Tensor:
    r"""Return the derivative that a `Surrogate` uses in the backward pass.

    With :math:`x = v - v_\mathrm{th}`:

    ============== ============================================ ==============================
    `method`       derivative                                   role of `alpha`
    ============== ============================================ ==============================
    `heaviside`    :math:`0`: no gradient passes the threshold  none
    `super`        :math:`1 / (1 + \alpha |x|)^2`               steepness
    `triangle`     :math:`\alpha \max(0, 1 - |x|)`              height; the width is fixed at 1
    `tanh`         :math:`1 - \tanh^2(\alpha x)`                steepness
    `circ`         :math:`(1 + (x / \alpha)^2)^{-3/2}`          width
    `heavi_erfc`   :math:`2 / \sqrt{\pi} \; e^{-(\alpha x)^2}`  steepness
    `sigmoid`      :math:`\alpha \sigma (1 - \sigma)`           steepness, of the spikes too
    ============== ============================================ ==============================

    Args:
        x: distance of the membrane voltage to the threshold, any shape.
        method: name of the spike function.
        alpha: its shape parameter, positive; what it does depends on `method`. None for the default, 1 for `super` and
            100 for the others: with it, neurons learn as Norse's do.

    Returns:
        The derivative, of the shape of `x`.

    Raises:
        ValueError: if `method` is unknown.

    References:
        `super`: Zenke and Ganguli (2018); `triangle`: Esser et al. (2016), Bellec et al. (2020). The shapes and
        scales are those of Norse 1.1, except that Norse ignores `alpha` for `super` and has no `sigmoid`, where
        :math:`\sigma = 1 / (1 + e^{-\alpha x})`. Explained in chapter 1.
    """
    return Surrogate(method, alpha).slope(x)


class _Threshold(torch.autograd.Function):
    """Heaviside step forward, or `value`; `derivative` backward."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor, alpha: float, derivative: Derivative, value: Derivative | None) -> torch.Tensor:
        return (x > 0).to(x.dtype) if value is None else value(x, alpha)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        x, ctx.alpha, ctx.derivative, _ = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx, grad_output: torch.Tensor):
        (x,) = ctx.saved_tensors
        return grad_output * ctx.derivative(x, ctx.alpha), None, None, None


setattr(_Threshold.forward, "__signature__", inspect.signature(_Threshold.forward))  # noqa: B010 PyTorch asks each time


class _ForwardThreshold(_Threshold):
    """The same with forward-mode derivatives; a class of its own, because `torch.compile` takes none that has them."""

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        _Threshold.setup_context(ctx, inputs, output)
        ctx.save_for_forward(inputs[0])

    @staticmethod
    def jvp(ctx, tangent: torch.Tensor, *_) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return tangent * ctx.derivative(x, ctx.alpha)

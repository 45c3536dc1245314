"""Spike functions: a hard threshold forward, a smooth surrogate derivative backward.

Every function here but one emits a spike exactly where the membrane is above threshold, so the forward pass is the
same for all of them. They differ only in the derivative that backpropagation uses in place of the step's true
one, which is zero everywhere but at the threshold. The exception, `sigmoid`, is smooth forward too, and its derivative
is the true one: networks of such graded spikes are there to check gradients. Explained in chapter 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.autograd import forward_ad

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


def _graded_sigmoid(x: torch.Tensor, alpha: float) -> torch.Tensor:
    return torch.sigmoid(alpha * x)


GRADED: dict[str, Derivative] = {"sigmoid": _graded_sigmoid}
"""The spikes themselves where they are smooth, by the same names."""


def check_method(method: str) -> str:
    """Return `method` if it names a spike function.

    Raises:
        ValueError: it does not; the message lists the names that do.
    """
    if method == "adjoint":
        raise ValueError(
            "method='adjoint': expected a spike function; the adjoint method is one of layers and cells as a whole. "
            "Use LIF, LIFRecurrent, LIFCell or LIFRecurrentCell, or another method"
        )
    if method not in DERIVATIVES:
        raise ValueError(f"unknown spike function method={method!r}; expected one of {', '.join(DERIVATIVES)}")
    return method


def alpha_in_effect(method: str, alpha: float | None) -> float:
    """Return `alpha`, or its default for a spike function: 1 for "super", else 100."""
    if alpha is not None:
        return alpha
    return 1.0 if method == "super" else 100.0


def surrogate_derivative(x: torch.Tensor, method: str = "super", alpha: float | None = None) -> torch.Tensor:
    r"""Return the derivative that `threshold` uses in the backward pass.

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
    return DERIVATIVES[check_method(method)](x, alpha_in_effect(method, alpha))


class _Threshold(torch.autograd.Function):
    """Heaviside step forward, `derivative` backward."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor, alpha: float, derivative: Derivative) -> torch.Tensor:
        return (x > 0).to(x.dtype)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        x, ctx.alpha, ctx.derivative = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx, grad_output: torch.Tensor):
        (x,) = ctx.saved_tensors
        return grad_output * ctx.derivative(x, ctx.alpha), None, None


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


def threshold(x: torch.Tensor, method: str = "super", alpha: float | None = None) -> torch.Tensor:
    r"""Emit a spike where the membrane is above threshold: :math:`z = \Theta(x)` with :math:`\Theta(0) = 0`.

    The backward pass uses `surrogate_derivative(x, method, alpha)` in place of the step's derivative. With `sigmoid`,
    spikes are graded, :math:`z = 1 / (1 + e^{-\alpha x})`, and the derivative is exact.

    Args:
        x: distance of the membrane voltage to the threshold, :math:`v - v_\mathrm{th}`, any shape.
        method: name of the spike function, see `surrogate_derivative`.
        alpha: its shape parameter, positive; None for the default, see `surrogate_derivative`.

    Returns:
        Spikes, 0 or 1 (between them for `sigmoid`), of the shape and type of `x`.

    Raises:
        ValueError: if `method` is unknown.
    """
    derivative, alpha = DERIVATIVES[check_method(method)], alpha_in_effect(method, alpha)
    if method == "heaviside":  # nothing to propagate, so nothing to keep for the backward pass
        return (x > 0).to(x.dtype)
    if method in GRADED:
        return GRADED[method](x, alpha)
    function = _ForwardThreshold if forward_ad._current_level >= 0 else _Threshold
    return function.apply(x, alpha, derivative)

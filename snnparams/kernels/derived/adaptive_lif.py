"""Derived from `snnparams/neurons/adaptive_lif.py` by `make derive`, to be read."""

# fmt: off

def AdaptiveLIF_forward(v, i, adaptation, a, b, r, v_leak, v_th, v_reset, beta, reset, spike):
    """Return the output and the new v, i, adaptation."""
    s4 = v + a * (v_leak - v + i)
    s7 = spike(s4, v_th + beta * adaptation)
    s8 = reset(s7)
    s12 = (1 - s8) * s4 + s8 * v_reset
    s14 = i - b * i
    s17 = adaptation - r * adaptation + s7
    return s7, s12, s14, s17


def AdaptiveLIF_backward(
    v, i, adaptation, a, b, r, v_leak, v_th, v_reset, beta, g_output, g_v, g_i, g_adaptation, reset,
    spike, surrogate,
):
    """Return the gradients by v, i, adaptation, a, b, r, v_leak, v_th, v_reset, beta."""
    s2 = v_leak - v + i
    s4 = v + a * s2
    s6 = v_th + beta * adaptation
    s8 = reset(spike(s4, s6))
    g2 = -g_adaptation
    g3 = g2 * adaptation
    g6 = -g_i
    g7 = g6 * i
    g11 = g_v * s8
    g15 = g_output + g_adaptation + (g_v * v_reset - g_v * s4)
    g16 = surrogate(g15, s4, s6)
    g17 = g_v * (1 - s8) + g16
    g18 = -g16
    g19 = g18 * adaptation
    g21 = g_adaptation + g2 * r + g18 * beta
    g22 = g17 * s2
    g23 = g17 * a
    g24 = g_i + g6 * b + g23
    g25 = g17 - g23
    return g25, g24, g21, g22, g7, g3, g23, g18, g11, g19

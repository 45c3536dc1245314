"""Derived from `snnparams/neurons/exact_lif.py` by `make derive`, to be read."""

# fmt: off

def ExactLIF_forward(v, i, a, b, c, v_leak, v_th, v_reset, reset, spike):
    """Return the output and the new v, i."""
    s5 = v + a * (v_leak - v) + c * i
    s6 = spike(s5, v_th)
    s7 = reset(s6)
    s11 = (1 - s7) * s5 + s7 * v_reset
    s13 = i - b * i
    return s6, s11, s13


def ExactLIF_backward(
    v, i, a, b, c, v_leak, v_th, v_reset, g_output, g_v, g_i, reset, spike, surrogate,
):
    """Return the gradients by v, i, a, b, c, v_leak, v_th, v_reset."""
    s1 = v_leak - v
    s5 = v + a * s1 + c * i
    s7 = reset(spike(s5, v_th))
    g1 = -g_i
    g2 = g1 * i
    g6 = g_v * s7
    g11 = surrogate(g_output + (g_v * v_reset - g_v * s5), s5, v_th)
    g12 = g_v * (1 - s7) + g11
    g13 = -g11
    g14 = g12 * i
    g16 = g_i + g1 * b + g12 * c
    g17 = g12 * s1
    g18 = g12 * a
    g19 = g12 - g18
    return g19, g16, g17, g2, g14, g18, g13, g6

"""Derived from `snnparams/neurons/lif.py` by `make derive`, to be read."""

# fmt: off

def LIFParameters_forward(v, i, a, b, v_leak, v_th, v_reset, reset, spike):
    """Return the output and the new v, i."""
    s4 = v + a * (v_leak - v + i)
    s5 = spike(s4, v_th)
    s6 = reset(s5)
    s10 = (1 - s6) * s4 + s6 * v_reset
    s12 = i - b * i
    return s5, s10, s12


def LIFParameters_backward(
    v, i, a, b, v_leak, v_th, v_reset, g_output, g_v, g_i, reset, spike, surrogate,
):
    """Return the gradients by v, i, a, b, v_leak, v_th, v_reset."""
    s2 = v_leak - v + i
    s4 = v + a * s2
    s6 = reset(spike(s4, v_th))
    g1 = -g_i
    g2 = g1 * i
    g6 = g_v * s6
    g11 = surrogate(g_output + (g_v * v_reset - g_v * s4), s4, v_th)
    g12 = g_v * (1 - s6) + g11
    g13 = -g11
    g14 = g12 * s2
    g15 = g12 * a
    g16 = g_i + g1 * b + g15
    g17 = g12 - g15
    return g17, g16, g14, g2, g15, g13, g6


def SubtractiveLIF_forward(v, i, a, b, v_leak, v_th, v_reset, reset, spike):
    """Return the output and the new v, i."""
    s4 = v + a * (v_leak - v + i)
    s5 = spike(s4, v_th)
    s9 = s4 - reset(s5) * (v_th - v_reset)
    s11 = i - b * i
    return s5, s9, s11


def SubtractiveLIF_backward(
    v, i, a, b, v_leak, v_th, v_reset, g_output, g_v, g_i, reset, spike, surrogate,
):
    """Return the gradients by v, i, a, b, v_leak, v_th, v_reset."""
    s2 = v_leak - v + i
    s4 = v + a * s2
    g1 = -g_i
    g2 = g1 * i
    g5 = -g_v
    g7 = g5 * reset(spike(s4, v_th))
    g8 = -g7
    g10 = surrogate(g_output + g5 * (v_th - v_reset), s4, v_th)
    g11 = g_v + g10
    g12 = g7 - g10
    g13 = g11 * s2
    g14 = g11 * a
    g15 = g_i + g1 * b + g14
    g16 = g11 - g14
    return g16, g15, g13, g2, g14, g12, g8

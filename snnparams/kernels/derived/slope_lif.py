"""Derived from `snnparams/neurons/slope_lif.py` by `make derive`, to be read."""

# fmt: off

def SlopeLIF_forward(v, i, a, b, v_leak, v_th, v_reset, slope, reset, spike):
    """Return the output and the new v, i."""
    s4 = v + a * (v_leak - v + i)
    s7 = spike(slope * (s4 - v_th), 0)
    s8 = reset(s7)
    s12 = (1 - s8) * s4 + s8 * v_reset
    s14 = i - b * i
    return s7, s12, s14


def SlopeLIF_backward(
    v, i, a, b, v_leak, v_th, v_reset, slope, g_output, g_v, g_i, reset, spike, surrogate,
):
    """Return the gradients by v, i, a, b, v_leak, v_th, v_reset, slope."""
    s2 = v_leak - v + i
    s4 = v + a * s2
    s5 = s4 - v_th
    s6 = slope * s5
    s8 = reset(spike(s6, 0))
    g1 = -g_i
    g2 = g1 * i
    g6 = g_v * s8
    g11 = surrogate(g_output + (g_v * v_reset - g_v * s4), s6, 0)
    g12 = g11 * s5
    g13 = g11 * slope
    g14 = g_v * (1 - s8) + g13
    g15 = -g13
    g16 = g14 * s2
    g17 = g14 * a
    g18 = g_i + g1 * b + g17
    g19 = g14 - g17
    return g19, g18, g16, g2, g17, g15, g6, g12

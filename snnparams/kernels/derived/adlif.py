"""Derived from `snnparams/neurons/adlif.py` by `make derive`, to be read."""

# fmt: off

def SEAdLIF_forward(x, v, w, of_v, of_w, v_th, a, b, reset, spike):
    """Return the output and the new v, w."""
    s4 = v + of_v * (x - w - v)
    s5 = spike(s4, v_th)
    s8 = (1 - reset(s5)) * s4
    s14 = w + of_w * (a * s8 + b * s5 - w)
    return s5, s8, s14


def SEAdLIF_backward(x, v, w, of_v, of_w, v_th, a, b, g_output, g_v, g_w, reset, spike, surrogate):
    """Return the gradients by v, w, x, of_v, of_w, v_th, a, b."""
    s2 = x - w - v
    s4 = v + of_v * s2
    s5 = spike(s4, v_th)
    s7 = 1 - reset(s5)
    s8 = s7 * s4
    g1 = g_w * (a * s8 + b * s5 - w)
    g2 = g_w * of_w
    g4 = g2 * s5
    g7 = g2 * s8
    g9 = g_v + g2 * a
    g14 = surrogate(g_output + g2 * b + -(g9 * s4), s4, v_th)
    g15 = g9 * s7 + g14
    g16 = -g14
    g17 = g15 * s2
    g18 = g15 * of_v
    g19 = g15 - g18
    g20 = g_w - g2 - g18
    return g19, g20, g18, g17, g1, g16, g7, g4


def EFAdLIF_forward(x, v, w, of_v, of_w, v_th, a, b, reset, spike):
    """Return the output and the new v, w."""
    s4 = v + of_v * (x - w - v)
    s5 = spike(s4, v_th)
    s8 = (1 - reset(s5)) * s4
    s14 = w + of_w * (a * v + b * s5 - w)
    return s5, s8, s14


def EFAdLIF_backward(x, v, w, of_v, of_w, v_th, a, b, g_output, g_v, g_w, reset, spike, surrogate):
    """Return the gradients by v, w, x, of_v, of_w, v_th, a, b."""
    s2 = x - w - v
    s4 = v + of_v * s2
    s5 = spike(s4, v_th)
    g1 = g_w * (a * v + b * s5 - w)
    g2 = g_w * of_w
    g4 = g2 * s5
    g7 = g2 * v
    g13 = surrogate(g_output + g2 * b + -(g_v * s4), s4, v_th)
    g14 = g_v * (1 - reset(s5)) + g13
    g15 = -g13
    g17 = g14 * s2
    g18 = g14 * of_v
    g19 = g2 * a + g14 - g18
    g20 = g_w - g2 - g18
    return g19, g20, g18, g17, g1, g15, g7, g4

"""Derived from `snnparams/neurons/li.py` by `make derive`, to be read."""

# fmt: off

def LIParameters_forward(v, i, a, b, v_leak):
    """Return the output and the new v, i."""
    s4 = v + a * (v_leak - v + i)
    s6 = i - b * i
    return s4, s4, s6


def LIParameters_backward(v, i, a, b, v_leak, g_output, g_v, g_i):
    """Return the gradients by v, i, a, b, v_leak."""
    g1 = g_output + g_v
    g2 = -g_i
    g3 = g2 * i
    g6 = g1 * (v_leak - v + i)
    g7 = g1 * a
    g8 = g_i + g2 * b + g7
    g9 = g1 - g7
    return g9, g8, g6, g3, g7

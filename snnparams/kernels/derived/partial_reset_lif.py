"""Derived from `snnparams/neurons/partial_reset_lif.py` by `make derive`, to be read."""

# fmt: off

def PartialResetLIF_forward(
    v, i, a, b, v_leak, v_th, v_reset, of_voltage, of_threshold, of_current, reset, spike,
):
    """Return the output and the new v, i."""
    s4 = v + a * (v_leak - v + i)
    s5 = spike(s4, v_th)
    s6 = reset(s5)
    s11 = of_voltage * (s4 - v_reset) + of_threshold * (v_th - v_reset)
    s13 = s4 - s6 * s11
    s15 = i - b * i
    s18 = s15 - of_current * s6 * s15
    return s5, s13, s18


def PartialResetLIF_backward(
    v, i, a, b, v_leak, v_th, v_reset, of_voltage, of_threshold, of_current, g_output, g_v, g_i,
    reset, spike, surrogate,
):
    """Return the gradients by v, i, a, b, v_leak, v_th, v_reset, of_voltage, of_threshold, of_current."""
    s2 = v_leak - v + i
    s4 = v + a * s2
    s6 = reset(spike(s4, v_th))
    s7 = s4 - v_reset
    s9 = v_th - v_reset
    g1 = -g_i
    g2 = g1 * (i - b * i)
    g4 = g_i + g1 * (of_current * s6)
    g5 = g2 * s6
    g7 = -g4
    g8 = g7 * i
    g11 = -g_v
    g13 = g2 * of_current + g11 * (of_voltage * s7 + of_threshold * s9)
    g14 = g11 * s6
    g15 = g14 * s9
    g16 = g14 * of_threshold
    g18 = g14 * s7
    g19 = g14 * of_voltage
    g21 = -g16 - g19
    g23 = surrogate(g_output + g13, s4, v_th)
    g24 = g_v + g19 + g23
    g25 = g16 - g23
    g26 = g24 * s2
    g27 = g24 * a
    g28 = g4 + g7 * b + g27
    g29 = g24 - g27
    return g29, g28, g26, g8, g27, g25, g21, g18, g15, g5

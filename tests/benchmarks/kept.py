"""What a backward pass needs of the forward pass, counted in bytes."""

import torch


def kept(module, x: torch.Tensor, call=None) -> int:
    """Return the bytes that autograd keeps of a call, without parameters, buffers and input.

    Args:
        module: a module that returns an output, or a tuple that begins with one.
        x: its input.
        call: called with the input in place of the module.
    """
    own = {t.untyped_storage().data_ptr() for t in (*module.parameters(), *module.buffers(), x)}
    total, held = {}, []

    def pack(t):
        held.append(t)  # so that no address is used twice
        place = t.untyped_storage().data_ptr()
        if place not in own:
            total[place] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = (module if call is None else call)(x)
    assert (out[0] if isinstance(out, tuple) else out).requires_grad
    return sum(total.values())

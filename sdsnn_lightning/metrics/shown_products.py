"""Makes PyTorch show its products one by one, and tells where in the program one was called."""

import sys
from contextlib import ExitStack

import torch


def without_fused_products(recurrent: bool) -> ExitStack:
    """Switches off kernels that hide their products, until the result is closed; oneDNN's only where layers recur."""
    switches = [(torch.backends.mkldnn, "enabled"), (torch.backends.cudnn, "enabled")] if recurrent else []
    stack = ExitStack()
    for place, name in switches:
        stack.callback(setattr, place, name, getattr(place, name))
        setattr(place, name, False)
    stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
    torch.backends.mha.set_fastpath_enabled(False)
    return stack


def call_site() -> tuple:
    """Where in the program the running operation was called: all frames up to the first that is not torch's."""
    frame, site = sys._getframe(2), []
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module not in (__name__, "sdsnn_lightning.metrics.operations"):
            site.append((frame.f_code.co_name, frame.f_lasti))
            if not module.startswith("torch."):
                break
        frame = frame.f_back  # type: ignore[assignment]
    return tuple(site)

"""The Triton kernels become machine code of a GPU without one at hand."""

import importlib
import re

import pytest

triton = pytest.importorskip("triton")


def machine_code(kernel, real, dtype, **constants):
    """Compiles for compute capability 9.0 as `gpu._launch` does; the assembler's text."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants |= {"REAL": real, "BLOCK": 128}
    wide = ("beta_ptr", "threshold_ptr", "grad_beta_ptr", "grad_threshold_ptr")
    signature = {}
    for name in kernel.arg_names:
        if name in constants:
            signature[name] = "constexpr"
        elif name.endswith("_ptr"):
            signature[name] = "*fp32" if name in wide else f"*{dtype}"
        else:
            signature[name] = "i32"
    if "grad_x_ptr" in signature:
        signature["mem_ptr"] = "*fp32"
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    compiled = triton.compile(
        source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 1, "enable_fp_fusion": False}
    )
    assert len(compiled.asm["cubin"]) > 1000
    return compiled.asm["ptx"]


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("delay", [True, False])
def test_compiles_for_a_gpu_without_fused_multiply_add(monkeypatch, tmp_path, dtype, delay):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    try:
        kernels = importlib.import_module("sdsnn_lightning.neurons.triton_kernels")
        target = machine_code(
            kernels.forward, kernels.tl.float32, dtype, SUBTRACT=True, ZERO=False, DELAY=delay, MEMBRANE=True
        )
    except RuntimeError as error:
        pytest.skip(f"this triton has no assembler for CUDA: {error}")
    options = {"SUBTRACT": True, "ZERO": False, "DELAY": delay, "DETACH": False, "KIND": 0, "A": 1.0, "C": 3.1}
    back = machine_code(kernels.backward, kernels.tl.float32, dtype, **options, WITH_GRAD_MEM=True, LEARN=True)
    for code in (target, back):
        assert len(re.findall(r"\.visible \.entry", code)) == 1
        assert re.search(r"mul\.(rn\.)?f32", code)
        assert not re.search(r"\bfma\.", code)  # one rounding instead of two would flip spikes

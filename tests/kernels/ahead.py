"""Compile every Triton kernel ahead of time, without a GPU, and hold what the compiler needs against ``budgets.json``.

``python -m tests.kernels.ahead`` checks (a process of its own: the interpreter must be off); ``--write`` commits new
budgets for the installed version of Triton.
"""

import itertools
import json
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from medveil.kernels.cdc.cuda import DIRECT, GEMM, WEIGHT
from medveil.kernels.cdc.kernels import direct_fwd_kernel, gemm_fwd_kernel, gemm_weight_kernel
from medveil.kernels.clip.cuda import BLOCK, ROWS
from medveil.kernels.clip.kernels import clip_kernel, packed_bwd_kernel
from medveil.kernels.lbp.kernels import lbp_fwd_kernel
from medveil.kernels.topk import cuda as topk_cuda
from medveil.kernels.topk.kernels import topk_chunk_kernel, topk_count_kernel, topk_row_kernel, topk_tie_kernel

BUDGETS = Path(__file__).with_name("budgets.json")
ARCHITECTURES = (80, 90, 100)
SIDE, COLUMNS = 224, 256


def clip_arguments(channels: int, clip: int, given: bool, grad: bool) -> dict[str, Any]:
    floats = ("x", "contour_noise", "texture_noise", "grad", "out", "out2")
    pointers = {f"{name}_ptr": "*fp32" for name in floats} | {"mask_ptr": "*u8", "packed_ptr": "*u8"}
    pointers |= {"contour_ptr": "*u8", "roi_ptr": "*u8", "texture_ptr": "*fp32"}
    sizes = {"height": SIDE, "width": SIDE, "stride_n": channels * SIDE**2, "stride_c": SIDE**2, "stride_h": SIDE}
    flags = {"HAS_CONTOUR": given, "HAS_ROI": given, "HAS_TEXTURE": given, "SAVE": not grad, "GRAD": grad}
    rest = {"LARGEST": 255, "C": channels, "METHOD": 0, "CLIP": clip, "BAND": 0 if given else 1, "ACC": tl.float32}
    blocks = {"ROWS": ROWS, "COLUMNS": COLUMNS, "WIDE": False, "num_warps": COLUMNS // 64, "enable_fp_fusion": False}
    return pointers | sizes | {"stride_w": 1, "eps": 0.5} | flags | rest | blocks


def topk_arguments(positions: int, **more: Any) -> dict[str, Any]:
    pointers = {f"{name}_ptr": "*fp32" for name in ("grad", "noise", "x", "out")} | {"support_ptr": "*u8"}
    pointers |= {f"{name}_ptr": "*i32" for name in ("nan_flag", "counts", "ties")}
    numbers = {"positions": positions, "wanted": 78, "step": 0.5, "radius": 0.5}
    flags = {
        "C": 1,
        "ABS": True,
        "STEP": True,
        "HAS_SUPPORT": False,
        "SCORE": tl.float32,
        "KEY": tl.int32,
        "enable_fp_fusion": False,
    }
    flags |= {"ACC": tl.float32, "DIGITS": 4, "WIDE": False, "enable_fp_fusion": False}
    return pointers | numbers | flags | more


def cdc_arguments(dtype: str, channels: int, outputs: int, last: bool = False, **more: Any) -> dict[str, Any]:
    pointers = {"x_ptr": dtype, "out_ptr": dtype, "weight_v_ptr": "*fp32", "weight_c_ptr": "*fp32", "bias_ptr": "*fp32"}
    pointers |= {"weight_ptr": dtype, "grad_ptr": dtype, "partial_ptr": "*fp32"}
    sizes = {"channels": channels, "outputs": outputs, "pixels": 16 * SIDE**2, "blocks": 392}
    sizes |= {f"{of}{side}": SIDE for of in ("", "out_") for side in ("height", "width")}
    for of, count in (("x", channels), ("out", outputs), ("grad", outputs)):
        apart = (1, SIDE * count, count) if last and count > 3 else (SIDE**2, SIDE, 1)
        sizes |= {f"{of}_stride_{axis}": stride for axis, stride in zip("nchw", (count * SIDE**2, *apart), strict=True)}
    geometry = {f"{name}_{side}": 1 for name in ("STRIDE", "PADDING", "DILATION") for side in "HW"}
    flags = {"C": channels, "HAS_BIAS": True, "RELU": False, "SUMS": False, "BIAS": True}
    flags |= {"ACC": tl.float32, "PRECISION": "tf32", "WIDE": False}
    return pointers | sizes | geometry | flags | more


LONG = {"BLOCK": topk_cuda.BLOCK, "num_warps": 8}
KERNELS: dict[str, tuple[Any, dict[str, Any]]] = {
    "lbp_fwd": (
        lbp_fwd_kernel,
        {"image_ptr": "*u8", "code_ptr": "*u8", "height": SIDE, "width": SIDE, "METHOD": 0, "ROWS": ROWS}
        | {"COLUMNS": COLUMNS, "WIDE": False, "num_warps": 4, "enable_fp_fusion": False},
    ),
    "clip_fwd_grey": (clip_kernel, clip_arguments(1, 0, given=False, grad=False)),
    "clip_fwd_colour": (clip_kernel, clip_arguments(3, 0, given=False, grad=False)),
    "clip_fwd_colour_maps_given": (clip_kernel, clip_arguments(3, 0, given=True, grad=False)),
    "clip_bwd_tanh_colour": (clip_kernel, clip_arguments(3, 1, given=False, grad=True)),
    "clip_bwd_packed_colour": (
        packed_bwd_kernel,
        {"grad_ptr": "*fp32", "packed_ptr": "*u8", "grad_c_ptr": "*fp32", "grad_t_ptr": "*fp32", "pixels": SIDE**2}
        | {
            "stride_n": 3 * SIDE**2,
            "stride_c": SIDE**2,
            "stride_p": 1,
            "C": 3,
            "BLOCK": BLOCK,
            "WIDE": False,
            "enable_fp_fusion": False,
        },
    ),
    "topk_row_784": (topk_row_kernel, topk_arguments(784, BLOCK=1024, num_warps=4)),
    "topk_row_2352": (topk_row_kernel, topk_arguments(2352, BLOCK=4096, num_warps=16)),
    "topk_count_150528": (topk_count_kernel, topk_arguments(150528, PASS=1, **LONG)),
    "topk_tie_150528": (topk_tie_kernel, topk_arguments(150528, **LONG)),
    "topk_chunk_150528": (topk_chunk_kernel, topk_arguments(150528, CHUNKS=64, **LONG)),
    "topk_row_784_by_64_bit_offsets": (topk_row_kernel, topk_arguments(784, BLOCK=1024, num_warps=4) | {"WIDE": True}),
    "clip_fwd_grey_by_64_bit_offsets": (clip_kernel, clip_arguments(1, 0, given=False, grad=False) | {"WIDE": True}),
    "cdc_direct_fwd_grey": (direct_fwd_kernel, cdc_arguments("*fp32", 1, 64, **DIRECT)),
    "cdc_direct_fwd_colour_relu_sums": (
        direct_fwd_kernel,
        cdc_arguments("*bf16", 3, 64, **DIRECT) | {"RELU": True, "SUMS": True},
    ),
    "cdc_gemm_fwd_bf16": (gemm_fwd_kernel, cdc_arguments("*bf16", 64, 64, **GEMM)),
    "cdc_gemm_fwd_bf16_channels_last_relu_sums": (
        gemm_fwd_kernel,
        cdc_arguments("*bf16", 64, 64, last=True, **GEMM) | {"RELU": True, "SUMS": True},
    ),
    "cdc_gemm_grad_input_stem_bf16": (gemm_fwd_kernel, cdc_arguments("*bf16", 64, 3, **GEMM) | {"OUTPUTS": 16}),
    "cdc_gemm_weight_stem_bf16": (gemm_weight_kernel, cdc_arguments("*bf16", 3, 64, **WEIGHT) | {"COLUMNS": 32}),
    "cdc_gemm_weight_bf16_channels_last": (gemm_weight_kernel, cdc_arguments("*bf16", 64, 64, last=True, **WEIGHT)),
}


def compile_for(kernel: Any, arguments: dict[str, Any], architecture: int) -> Any:
    """The kernel as the just-in-time compiler would specialise it: ones are constants, multiples of 16 are known as
    such."""
    signature: dict[str, str] = {}
    constants: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    for index, parameter in enumerate(kernel.params):
        name, value = parameter.name, arguments[parameter.name]
        if parameter.is_constexpr or (isinstance(value, int) and value == 1):
            signature[name], constants[index,] = "constexpr", value
        elif isinstance(value, float):
            signature[name] = "fp64"
        else:
            signature[name] = value if isinstance(value, str) else "i32"
            if isinstance(value, str) or value % 16 == 0:
                attributes[index,] = [["tt.divisibility", 16]]
    options = {name: arguments[name] for name in ("num_warps", "num_stages", "enable_fp_fusion") if name in arguments}
    source = ASTSource(kernel, signature, constants, attributes)
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)


def resources(compiled: Any) -> dict[str, int]:
    """Registers per thread, bytes spilled per thread, shared bytes, and the widest global access in bits."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        text = subprocess.run([tool, "-res-usage", file.name], check=True, capture_output=True, text=True).stdout
    found = {key: int(value) for key, value in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", text)}
    ptx = compiled.asm["ptx"]
    widths = re.findall(r"(?:ld|st)\.global[\w.:]*?(?:\.v(\d))?\.b(\d+)", ptx)
    copies = re.findall(r"cp\.async\.c[ag]\.shared\.global\b.*?\], (0x\w+|\d+)", ptx)  # past the registers, in bytes
    widest = max([int(count or 1) * int(bits) for count, bits in widths] + [8 * int(size, 0) for size in copies])
    spilled = max(found["STACK"], found["LOCAL"])
    return {"registers": found["REG"], "spilled": spilled, "shared": compiled.metadata.shared, "bits": widest}


def measure(case: tuple[str, int]) -> dict[str, int]:
    name, architecture = case
    return resources(compile_for(*KERNELS[name], architecture))


def main() -> int:
    cases = list(itertools.product(KERNELS, ARCHITECTURES))
    with ProcessPoolExecutor(2) as pool:
        found = pool.map(measure, cases)
        measured = {f"{name} sm_{architecture}": now for (name, architecture), now in zip(cases, found, strict=True)}
    version = ".".join(triton.__version__.split(".")[:2])
    tables = json.loads(BUDGETS.read_text())
    if "--write" in sys.argv:
        tables[version] = measured
        BUDGETS.write_text(json.dumps(tables, indent=1) + "\n")
    # Another version's compiler allots registers otherwise: of it only spills and widths are judged.
    budgets = tables.get(version) or tables["3.9"]
    wrong = sorted(set(budgets) ^ set(measured))
    for name, now in measured.items():
        budget = budgets.get(name, now)
        # Releases of one version differ by a few registers; the next step of occupancy is at least eight away.
        kept = now["registers"] <= budget["registers"] + 8 and now["shared"] <= budget["shared"]
        if (version in tables and not kept) or now["spilled"] > 0 or now["bits"] < budget["bits"]:
            wrong.append(f"{name}: {now}, budget {budget}")
    print("\n".join(wrong) if wrong else f"{len(measured)} kernels within budget")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

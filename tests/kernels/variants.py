"""Calls whose kernels are held to budgets: every kernel, in the variants that the methods and the benchmarks launch, at
the papers' sizes."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from medveil.kernels.cdc import cuda as cdc
from medveil.kernels.clip import cuda as clip
from medveil.kernels.clip.reference import Inputs
from medveil.kernels.draws import cuda as draws
from medveil.kernels.folding import cuda as folding
from medveil.kernels.lbp import cuda as lbp
from medveil.kernels.topk import cuda as topk
from tests.kernels.launches import Launch, meta, recorded

SIDE, EPS = 224, 4 / 255
UNIT = [1, 1], [1, 1], [1, 1]
Call = Callable[[], Any]


def _convolution(
    channels: int, outputs: int, side: int, dtype: torch.dtype, wanted: list[bool], bias: bool = False
) -> Call:
    def call() -> None:
        x = meta(16, channels, side, side, dtype=dtype, last=True)
        weight = meta(outputs, channels, 3, 3, last=True)
        out, folded = cdc.cdc_conv2d(x, weight, weight, meta(outputs) if bias else None, *UNIT)
        cdc.cdc_conv2d_backward(torch.empty_like(out), x, folded, weight, weight, *UNIT, wanted)

    return call


def _full_fp32(call: Call) -> Call:
    def within() -> None:
        conv = torch.backends.cudnn.conv
        kept, conv.fp32_precision = conv.fp32_precision, "ieee"
        try:
            call()
        finally:
            conv.fp32_precision = kept

    return within


def _stats(channels: int, dtype: torch.dtype) -> Call:
    def call() -> None:
        x, weight = meta(16, channels, SIDE, SIDE, dtype=dtype, last=True), meta(64, channels, 3, 3, last=True)
        cdc.cdc_conv2d_stats(x, weight, weight, meta(64), *UNIT, True)

    return call


def _clip(
    channels: int,
    kind: str,
    *,
    last: bool = True,
    given: bool = False,
    backward: bool = False,
    side: int = SIDE,
    dtype: torch.dtype = torch.float32,
    lbp_method: str = "default",
) -> Call:
    def call() -> None:
        x = meta(16, channels, side, side, dtype=dtype, last=last)
        mask = meta(16, 1, side, side, dtype=torch.uint8)
        maps = (mask, None, meta(16, 1, side, side)) if given else (None, None, None)
        inputs = Inputs(x, x, x, mask, *maps, EPS, 1, lbp_method)
        if not backward:
            clip.lbp_adaptive_clip(inputs, kind, True)
        elif kind == "tanh":
            clip.tanh_backward(x, inputs)
        else:
            clip.packed_backward(x, meta(16, (channels + 3) // 4, side, side, dtype=torch.uint8))

    return call


def _step(*shape: int, support: bool = False, by: str = "element", rank: str = "abs", dtype: Any = None) -> Call:
    def call() -> None:
        tensor = meta(*shape, dtype=dtype or torch.float32)
        within = meta(*shape, dtype=torch.bool) if support else None
        topk.topk_masked_step(tensor, tensor, tensor, 0.1, 0.1, 0.1, within, by, rank)

    return call


def _codes(method: str, side: int = SIDE) -> Call:
    return lambda: lbp.local_binary_pattern(meta(16, side, side, dtype=torch.uint8), method)


def _draws() -> None:
    keys, steps = meta(640, dtype=torch.int64), meta(10, dtype=torch.int64)
    draws.philox_words(keys, steps, 2**31 + 1, 2**32 - 2, 3)


def _moves() -> None:
    words = meta(640, 3, dtype=torch.int64)
    moved = draws.flip_shift(meta(128, 3, 28, 28), words, 3, True)
    draws.flip_shift_backward(moved, words, 128, 3, True)


def _norms() -> None:
    part = meta(64)
    weight = meta(64, 64, 3, 3)
    layer = folding.Layer(weight, None, part, part, part, part, weight.to(torch.bfloat16), part.to(torch.bfloat16))
    folding.FoldedNorms([(layer, 1e-5)])()


WEIGHTS, ALL = [False, True, False], [True, True, True]
CALLS: dict[str, Call] = {
    "cdc stem grey bf16": _convolution(1, 64, SIDE, torch.bfloat16, WEIGHTS),
    "cdc stem colour bf16": _convolution(3, 64, SIDE, torch.bfloat16, WEIGHTS),
    "cdc stem colour bf16, all gradients": _convolution(3, 64, SIDE, torch.bfloat16, ALL, bias=True),
    "cdc stem colour tf32": _convolution(3, 64, SIDE, torch.float32, ALL, bias=True),
    "cdc stem colour fp32": _full_fp32(_convolution(3, 64, SIDE, torch.float32, ALL, bias=True)),
    "cdc stem colour bf16 with sums": _stats(3, torch.bfloat16),
    "cdc wide bf16": _convolution(512, 1024, 14, torch.bfloat16, ALL),
    "clip grey": _clip(1, "hard"),
    "clip colour": _clip(3, "hard"),
    "clip colour planes": _clip(3, "hard", last=False),
    "clip colour tanh": _clip(3, "tanh"),
    "clip colour bf16, uniform codes": _clip(3, "hard", dtype=torch.bfloat16, lbp_method="uniform"),
    "clip colour straight-through, 64 wide": _clip(3, "straight-through", side=64),
    "clip grey, 28 wide": _clip(1, "hard", side=28),
    "clip grey given": _clip(1, "hard", given=True),
    "clip colour given": _clip(3, "hard", given=True),
    "clip colour given planes": _clip(3, "hard", given=True, last=False),
    "clip colour given tanh": _clip(3, "tanh", given=True),
    "clip backward grey": _clip(1, "hard", backward=True),
    "clip backward colour": _clip(3, "hard", backward=True),
    "clip backward colour planes": _clip(3, "hard", backward=True, last=False),
    "clip backward tanh colour": _clip(3, "tanh", backward=True),
    "clip backward tanh colour given": _clip(3, "tanh", backward=True, given=True),
    "lbp": _codes("default"),
    "lbp uniform": _codes("uniform"),
    "lbp 225 wide": _codes("default", 225),
    "topk 784": _step(79720, 1, 28, 28),
    "topk 784 signed with support": _step(79720, 1, 28, 28, support=True, rank="signed"),
    "topk 784 fp64": _step(79720, 1, 28, 28, dtype=torch.float64),
    "topk 784 by pixel with support": _step(26574, 3, 28, 28, support=True, by="pixel"),
    "topk 2352": _step(26574, 3, 28, 28),
    "topk 2352 with support": _step(26574, 3, 28, 28, support=True),
    "topk 12288": _step(5087, 3, 64, 64),
    "topk 16384 by pixel with support": _step(1024, 3, 128, 128, support=True, by="pixel"),
    "topk 8192 fp64": _step(1024, 2, 64, 64, dtype=torch.float64),
    "topk 16384 fp64": _step(1024, 1, 128, 128, dtype=torch.float64),
    "topk 150528": _step(416, 3, 224, 224),
    "topk 150528 with support": _step(416, 3, 224, 224, support=True),
    "topk 50176 by pixel": _step(416, 3, 224, 224, by="pixel"),
    "topk 786432": _step(80, 3, 512, 512),
    "draws of ten steps": _draws,
    "flip and shift": _moves,
    "folded batch-norms": _norms,
}


def elements(launch: Launch) -> int:
    """How many elements of its tensors (pixels, weights) a warp works on in the counted instructions: in one turn of a
    kernel's main loop, or in all of it."""
    of = launch.constant
    each = {
        "fold_kernel": lambda: of("BLOCK"),
        "unfold_kernel": lambda: of("SPLITS") * of("BLOCK"),
        "stem_fwd_kernel": lambda: of("ROWS") * of("COLUMNS") * of("OUTPUTS"),
        "stem_weight_kernel": lambda: of("ROWS") * of("COLUMNS") * of("OUTPUTS"),
        "gemm_fwd_kernel": lambda: of("PIXELS") * of("OUTPUTS"),
        "clip_walk_kernel": lambda: of("LANES") * of("PX"),
        "clip_flat_kernel": lambda: of("LANES") * of("PX"),
        "packed_bwd_kernel": lambda: of("LANES") * of("PX"),
        "lbp_fwd_kernel": lambda: of("LANES") * of("PX"),
        "topk_row_kernel": lambda: of("TILES") * of("TILE"),
        "topk_bracket_kernel": lambda: of("SAMPLE"),
        "topk_gather_kernel": lambda: of("BLOCK"),
        "topk_settle_kernel": lambda: of("ROOM"),
        "philox_kernel": lambda: 4 * of("BLOCK"),
        "flip_shift_fwd_kernel": lambda: of("C") * of("BLOCK"),
        "flip_shift_bwd_kernel": lambda: of("BLOCK"),
        "fold_norms_kernel": lambda: of("BLOCK"),
    }[launch.name]
    return int(each()) // int(of("num_warps"))


def launches() -> Iterator[tuple[str, Launch]]:
    """Every launch of every call, by a name of its own."""
    for name, call in CALLS.items():
        for launch in recorded(call):
            yield f"{name}: {launch.name.removesuffix('_kernel')}", launch

"""What a compiled kernel needs and what its machine code does, read from the tools in Triton's own wheel."""

import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import triton

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
_WIDTHS = {"U8": 8, "S8": 8, "U16": 16, "S16": 16, "64": 64, "128": 128, "256": 256}

_LEAST_LOOP = 32


class Code(NamedTuple):
    """Machine code: operations in order, and the (first, last) places of the loops that hold no other loop."""

    operations: list[str]
    loops: list[tuple[int, int]]

    def main(self) -> list[str]:
        """The first innermost loop that is more than waiting for something; without one all of it."""
        bodies = (self.operations[first : last + 1] for first, last in sorted(self.loops))
        return next((body for body in bodies if len(body) >= _LEAST_LOOP), self.operations)


def _ask(tool: str, option: str, cubin: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([TOOLS / tool, option, file.name], check=True, capture_output=True, text=True).stdout


def code(cubin: bytes) -> Code:
    """Disassembled; padding (NOP) and the endless loop behind the last instruction are left out."""
    operations: list[str] = []
    labels: dict[str, int] = {}
    jumps: list[tuple[int, str]] = []
    for line in _ask("nvdisasm", "-c", cubin).splitlines():
        if label := re.match(r"\s*(\.L_\w+):", line):
            labels[label[1]] = len(operations)
        elif instruction := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)(.*);", line):
            if instruction[1] == "NOP":
                continue
            if instruction[1].startswith("BRA") and (to := re.search(r"\.L_\w+", instruction[2])):
                jumps.append((len(operations), to[0]))
            operations.append(instruction[1])
    # What lies behind the end of the program and jumps back into it is no loop.
    ends = [at for at, operation in enumerate(operations) if operation == "EXIT"]
    found = [(labels[to], at) for at, to in jumps if labels[to] < at]
    found = [(first, last) for first, last in found if not any(first < end < last for end in ends)]
    inner = [(a, b) for a, b in found if not any((c, d) != (a, b) and a <= c and d <= b for c, d in found)]
    return Code(operations, inner)


def _width(operation: str) -> int:
    """Bits that one thread moves."""
    return next((_WIDTHS[part] for part in operation.split(".") if part in _WIDTHS), 32)


def _widest(operations: list[str], belongs: Callable[[str], bool]) -> int:
    return max((_width(operation) for operation in operations if belongs(operation)), default=0)


def resources(compiled: Any) -> dict[str, int]:
    """Registers of a thread, and accesses to memory that make up for some that it lacks; shared bytes; of the first
    innermost loop (of everything, where there is none) the barriers and the instructions, per warp; all instructions;
    the widest load from global memory and the widest store to it, in bits."""
    text = _ask("cuobjdump", "-res-usage", compiled.asm["cubin"])
    registers = re.search(r"REG:(\d+)", text)
    assert registers is not None
    whole = code(compiled.asm["cubin"])
    main = whole.main()
    return {
        "registers": int(registers[1]),
        # Not the size of the stack: some of that may be set aside for nothing.
        "spilled": sum(operation.startswith(("STL", "LDL")) for operation in whole.operations),
        "shared": compiled.metadata.shared,
        "barriers": sum(operation.startswith("BAR.") for operation in main),
        "loop": len(main),
        "all": len(whole.operations),
        "load": _widest(whole.operations, lambda name: name.startswith(("LDG", "LDGSTS", "UBLKCP"))),
        "store": _widest(whole.operations, lambda name: name.startswith("STG")),
    }

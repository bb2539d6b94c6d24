"""What NVIDIA's disassembler says of a compiled kernel: registers, spills, instructions issued.

A kernel is what Triton compiled, or the bytes of a cubin.
"""

import re
import subprocess
from itertools import pairwise
from pathlib import Path


def resources(binary, folder):
    """Registers of a thread, and instructions that store registers to memory."""
    registers = re.search(r"REG:(\d+)", _tool(binary, folder, "cuobjdump", "-res-usage"))
    assert registers
    return int(registers[1]), len(re.findall(r"\bSTL\b", _tool(binary, folder, "nvdisasm", "-c")))


def issued(binary, folder, trips, cold):
    """Instructions that a warp issues, where each loop runs `trips` times and no code of file `cold` runs."""
    instructions, loops = _parse(_tool(binary, folder, "nvdisasm", "-c", "-g"))
    rare = [i for i, (_, files) in enumerate(instructions) if cold in files]
    first, last = rare[0], rare[-1]
    around = [loop for loop in loops if loop[0] <= last and loop[1] >= first]
    first, last = min(first, *(a for a, _ in around)), max(last, *(b for _, b in around))
    hot = sorted(loop for loop in loops if loop not in around)
    assert all(a[1] < b[0] for a, b in pairwise(hot)), "loops within loops"
    total = len(instructions) - (last + 1 - first)
    return total + sum((trips - 1) * (b + 1 - a) for a, b in hot)


def busiest_loop(binary, folder):
    """The innermost loop that multiplies most in fp32: its instructions, and how many of them multiply."""
    instructions, loops = _parse(_tool(binary, folder, "nvdisasm", "-c"))
    inner = [a for a in loops if not any(a != b and a[0] <= b[0] and b[1] <= a[1] for b in loops)]

    def multiplications(loop):
        return sum(name.split(".")[0] in ("FFMA", "FMUL") for name, _ in instructions[loop[0] : loop[1] + 1])

    busiest = max(inner, key=multiplications)
    return busiest[1] + 1 - busiest[0], multiplications(busiest)


def _parse(listing):
    """Each instruction with the source files that it was inlined from; the loops as (first, last) of them."""
    instructions, labels, jumps, files = [], {}, [], set()
    fresh = True
    for line in listing.splitlines():
        if source := re.match(r'\s*//## File "([^"]+)"', line):
            files = {Path(source[1]).name} | (set() if fresh else files)
            fresh = False
        elif label := re.match(r"(\.L_\w+):", line):
            labels[label[1]] = len(instructions)
        elif instruction := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z]\S*)(.*);", line):
            target = re.search(r"\.L_\w+", instruction[2])
            if instruction[1].startswith("BRA") and target:
                jumps.append((len(instructions), target[0]))
            instructions.append((instruction[1], files))
            fresh = True
    loops = [(labels[label], at) for at, label in jumps if labels[label] < at]
    return instructions, loops


def _tool(binary, folder, name, *options):
    import triton

    path = folder / "kernel.cubin"
    path.write_bytes(binary if isinstance(binary, bytes) else binary.asm["cubin"])
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    return subprocess.run([tools / name, *options, path], capture_output=True, text=True, check=True).stdout

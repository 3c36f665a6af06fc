"""Compiles every Triton kernel that would be launched, for Hopper, on a machine without a GPU.

Triton's compiler, with the assembler in its wheel, needs no device. So a launch on tensors of the
CPU is replaced by a compilation of that very kernel with those argument types and constants.
"""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from griffin_lm.ops import gpu

HOPPER = GPUTarget("cuda", 90, 32)
_TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int8: "*i8",
    torch.uint8: "*u8",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.bool: "*i1",
}


@contextmanager
def compiled_instead_of_run(monkeypatch: Any) -> Iterator[dict[str, Any]]:
    """Within, launches compile; what was compiled, by the kernel's name, is filled in."""
    made: dict[str, Any] = {}

    def compile_it(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        kernel = self.fn.__name__
        names = [parameter.name for parameter in self.params]
        given = dict(zip(names, args, strict=False))
        given |= {name: options.pop(name) for name in names if name in options}
        signature, constants, attributes = {}, {}, {}
        for parameter in self.params:
            name, value = parameter.name, given[parameter.name]
            where = (names.index(name),)
            if parameter.is_constexpr or value is None:
                signature[name], constants[where] = "constexpr", value
            elif isinstance(value, torch.Tensor):
                signature[name] = _TYPES[value.dtype]
                attributes[where] = [["tt.divisibility", 16]]
            elif isinstance(value, float):
                signature[name] = "fp32"
            else:
                signature[name] = "i32"
                if value % 16 == 0 and not parameter.do_not_specialize:
                    attributes[where] = [["tt.divisibility", 16]]
        source = ASTSource(fn=self, signature=signature, constexprs=constants, attrs=attributes)
        made.setdefault(kernel, []).append(triton.compile(source, target=HOPPER, options=options))

    monkeypatch.setattr(JITFunction, "run", compile_it)
    monkeypatch.setattr(gpu, "why_not", lambda *_: None)
    yield made


def stack_bytes(kernel: Any, aside: Path) -> int:
    """What a thread keeps in memory for want of registers, as the assembler has it."""
    binary = aside / "kernel.cubin"
    binary.write_bytes(kernel.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    command = [str(tool), "-res-usage", str(binary)]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    return sum(map(int, re.findall(r"STACK:(\d+)", told.stdout)))

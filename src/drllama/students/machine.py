"""What the machine can do, as torch sees it."""

import statistics
import time
from collections.abc import Callable

import torch

_MUCH_FASTER = 1.3
_HINT = "; student.dtype=bfloat16 trains faster here, with coarser numbers"


def measure_machine() -> list[tuple[str, str]]:
    """Return device, threads and measured matrix-product rates, as name and text."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    wide = matrix_product_rate(device)
    # Small ones: where the processor has no instructions for bf16, they take hundreds of times as long.
    narrow = matrix_product_rate(device, torch.bfloat16, size=256, repeats=3)
    chosen = device.type == "cpu" and narrow > _MUCH_FASTER * wide
    facts = [
        ("device", torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"),
        ("threads", str(torch.get_num_threads())),
        ("fp32 matrix products", f"{wide / 1e9:.0f} GFLOP/s"),
        ("bf16 matrix products", f"{narrow / 1e9:.0f} GFLOP/s{_HINT if chosen else ''}"),
    ]
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        facts.append(("GPU memory", f"{free / 2**30:.0f} of {total / 2**30:.0f} GiB free"))
    return facts


def matrix_product_rate(
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    *,
    size: int = 1024,
    repeats: int = 7,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return the median rate of square matrix products, in FLOP a second of this clock."""
    left, right = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(repeats + 2):
        began = clock()
        _ = (left @ right).sum().item()  # .item() waits for the device
        seconds.append(clock() - began)
    return 2 * size**3 / statistics.median(seconds[2:])

"""What the machine can do, as torch sees it."""

import statistics
import time
from collections.abc import Callable

import torch


def measure_machine() -> list[tuple[str, str]]:
    """Return device, threads and the measured fp32 matrix-product rate, as name and text."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    facts = [
        ("device", torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"),
        ("threads", str(torch.get_num_threads())),
        ("fp32 matrix products", f"{matrix_product_rate(device) / 1e9:.0f} GFLOP/s"),
    ]
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        facts.append(("GPU memory", f"{free / 2**30:.0f} of {total / 2**30:.0f} GiB free"))
    return facts


def matrix_product_rate(
    device: torch.device, *, size: int = 1024, repeats: int = 7, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return the median rate of square fp32 matrix products, in FLOP a second of this clock."""
    left, right = torch.rand(size, size, device=device), torch.rand(size, size, device=device)
    seconds = []
    for _ in range(repeats + 2):
        began = clock()
        _ = (left @ right).sum().item()  # .item() waits for the device
        seconds.append(clock() - began)
    return 2 * size**3 / statistics.median(seconds[2:])

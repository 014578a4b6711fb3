"""Timing with device events, errors against a reference, and what the machine can do at most."""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

Call = Callable[[], object]


class DeviceLost(RuntimeError):
    """The device no longer answers in this process."""


@dataclass(frozen=True)
class Timing:
    """Seconds of every sample, in the order taken."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    def to_dict(self) -> dict:
        return {"median": self.median, "lowest": min(self.samples), "highest": max(self.samples), "samples": list(self.samples)}


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def survive(device: torch.device, error: Exception) -> str:
    """What to note of a failed call; raises DeviceLost if the device went with it."""
    try:
        wait(device)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    except Exception as fatal:
        raise DeviceLost(f"{error}") from fatal
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200] if str(error).strip() else ''}"


def once(call: Call, device: torch.device) -> float:
    """Seconds of one call, by events on a GPU."""
    if device.type != "cuda":
        begun = time.perf_counter()
        call()
        return time.perf_counter() - begun
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def timed(calls: dict[str, Call], device: torch.device, seconds: float, least: int = 3, most: int = 30) -> tuple[dict[str, Timing], dict[str, str]]:
    """Every call in turn, over and over, after two warm-up calls each; and why the ones that failed did.

    seconds: to spend on all of them after the warm-up, unless `least` rounds take longer. Each round begins with another call.
    """
    failed: dict[str, str] = {}
    for name, call in calls.items():
        try:
            call()
            call()
            wait(device)
        except Exception as error:
            failed[name] = survive(device, error)
    names = [name for name in calls if name not in failed]
    samples: dict[str, list[float]] = {name: [] for name in names}
    begun = time.perf_counter()
    for turn in range(most if names else 0):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            samples[name].append(once(calls[name], device))
        if turn + 1 >= least and time.perf_counter() - begun > seconds:
            break
    return {name: Timing(tuple(found)) for name, found in samples.items()}, failed


def error(found: Tensor, wanted: Tensor) -> float:
    """‖found - wanted‖ / ‖wanted‖ in double precision; a value that is no number makes it infinite."""
    found, wanted = found.double(), wanted.double()
    relative = ((found - wanted).norm() / wanted.norm().clamp_min(1e-300)).item()
    return relative if relative == relative else float("inf")


def allowed(dtype: torch.dtype) -> float:
    """The largest `error` of a correct kernel with operands of this type."""
    return {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 2e-2}[dtype]


def poison(like: Tensor) -> None:
    """Fill memory that the allocator will hand out next with what is no number, so that an output left unwritten shows."""
    del_me = [torch.full_like(like, float("nan")) for _ in range(2)]
    del del_me


@contextlib.contextmanager
def peak_memory(device: torch.device) -> Iterator[dict]:
    """The bytes used at most inside, beyond what was used before."""
    found: dict = {"bytes": None}
    if device.type == "cuda":
        wait(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    yield found
    if device.type == "cuda":
        wait(device)
        found["bytes"] = torch.cuda.max_memory_allocated(device) - before


def busy(call: Call, device: torch.device) -> float | None:
    """Seconds the device computed during a call, by the profiler; None where there is none."""
    if device.type != "cuda":
        return None
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        wait(device)
    return sum(event.self_device_time_total for event in profile.key_averages()) / 1e6 or None


def synchronisations(call: Call, device: torch.device) -> int | None:
    """How often the host waited for the device during a call."""
    if device.type != "cuda":
        return None
    import warnings

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(w.message) for w in caught)

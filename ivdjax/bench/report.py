"""All measurements in one go: printed as they come, a line each, and returned as one dict."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from ivdjax.bench import augmentation, inference, pipeline, sizes, startup, step
from ivdjax.bench.sizes import Sizes


def run(measured: Sizes | None = None) -> dict[str, Any]:
    """Measure everything and print it.

    Args:
        measured: what to measure with; None takes what suits this machine.

    Returns:
        `machine` (a dict of text and numbers); `step_over_pytorch`, PyTorch's seconds a step over ours, None without
        PyTorch; `pipeline_resident` and `pipeline_host`, steps a second with the pipeline over those on one fixed
        batch, for volumes on the device and on the host; `pipeline_over_memcpy`, the host pipeline's bytes a second
        over those of a plain copy; `augmentation_share` of a step's seconds; `inference_s`, seconds a case;
        `first_step_s`, seconds from a process's start to its first step, with the keys `cold` and `cached`;
        `step_over_floor`, a step's seconds over those its convolutions and matrix products need at least, None on a
        CPU.

    Raises:
        DataError: a process that was started to be timed ended too soon.
    """
    # First, while this process has not taken the accelerator for itself.
    first_step_s = startup.measure(measured)
    measured = measured if measured is not None else sizes.here()
    result: dict[str, Any] = {"machine": machine()}
    _print_setting(result["machine"], measured)
    _line("first step, cold", f"{first_step_s['cold']:.1f} s", "from the start of the process, nothing compiled")
    _line("first step, cached", f"{first_step_s['cached']:.1f} s", "with its program in the compilation cache")
    result |= _step(measured)
    for key, value in pipeline.measure(measured).items():
        result[key] = value
        _line(key.replace("_", " "), f"{value:.2f}", _PIPELINE[key])
    result["augmentation_share"] = augmentation.share(measured)
    _line("augmentation share", f"{result['augmentation_share']:.1%}", "of the seconds of a training step")
    result["inference_s"] = inference.measure(measured)
    size = " x ".join(str(n) for n in (*measured.volume, len(measured.experiment.data.channels)))
    _line("inference", f"{result['inference_s']:.2f} s", f"a case of {size}, with the left-right flip")
    result["first_step_s"] = first_step_s
    return result


_PIPELINE = {
    "pipeline_resident": "steps/s with it over steps/s on one fixed batch; volumes on the device",
    "pipeline_host": "the same, stacks gathered on the host",
    "pipeline_over_memcpy": "bytes/s of the host's pipeline over those of a plain copy",
}


def _step(measured: Sizes) -> dict[str, float | None]:
    """Measure and print the step; a CPU, whose layers live in its caches, is held to no floor."""
    taken = step.measure(measured)
    flops, size = (sum(getattr(layer, name) for layer in taken.layers) for name in ("flops", "bytes"))
    over_floor = taken.seconds / taken.floor_seconds
    over_pytorch = None if taken.pytorch_seconds is None else taken.pytorch_seconds / taken.seconds
    _line("training step", f"{taken.seconds:.4f} s", "on one fixed batch, without augmentation")
    if over_pytorch is None:
        _line("step over PyTorch", "-", "torch is not installed")
    else:
        _line("PyTorch's step", f"{taken.pytorch_seconds:.4f} s", "the same layers, batch and precision")
        _line("step over PyTorch", f"{over_pytorch:.2f}", "PyTorch's seconds over ours")
    work_s, copy_s = flops / taken.device.flops_s, size / taken.device.bytes_s
    peak, bandwidth = taken.device.flops_s / 1e9, taken.device.bytes_s / 1e9
    _line("work over peak", f"{work_s:.4f} s", f"{flops / 1e9:.1f} GFLOP of the layers at {peak:.0f} GFLOP/s")
    _line("bytes over bandwidth", f"{copy_s:.4f} s", f"{size / 1e9:.2f} GB of the layers at {bandwidth:.0f} GB/s")
    _line("step over floor", f"{over_floor:.2f}", "seconds over the sum of each layer's larger of both")
    on_cpu = jax.default_backend() == "cpu"
    return {"step_over_pytorch": over_pytorch, "step_over_floor": None if on_cpu else over_floor}


def machine() -> dict[str, Any]:
    """What this machine is, as far as it says so itself."""
    device = jax.devices()[0]
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "accelerator": None if device.platform == "cpu" else device.device_kind,
        "devices": jax.device_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "torch": _version("torch"),
        "load": round(os.getloadavg()[0], 1),
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _print_setting(machine: dict[str, Any], measured: Sizes) -> None:
    data, model = measured.experiment.data, measured.experiment.model
    accelerator = f", {machine['devices']} x {machine['accelerator']}" if machine["accelerator"] else ""
    torch = f", torch {machine['torch']}" if machine["torch"] else ""
    print(f"{machine['cpu']}, {machine['cores']} cores{accelerator}")
    print(f"Python {machine['python']}, jax {machine['jax']}{torch}; load average {machine['load']} at the start")
    shape = (measured.experiment.train.batch_size, data.slices, *data.window, len(data.channels))
    features = ", ".join(str(n) for n in model.features)
    if machine["load"] > 0.5 * machine["cores"]:
        print("Other work runs on this machine: times are too long, and ratios uncertain.")
    print(f"U-Net of {features} features in {model.dtype}, batch {' x '.join(str(n) for n in shape)}\n", flush=True)


def _line(name: str, value: str, meaning: str) -> None:
    print(f"{name:22} {value:>10}   {meaning}", flush=True)

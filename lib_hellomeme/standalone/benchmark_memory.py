"""What a generation's networks add to the peak memory of a drawing: `python -m lib_hellomeme benchmark-memory`.

Each side runs in a process of its own: SD1.5's UNet with two steps of two rows, and the same with the networks loaded
from their files, the control pass, the write pass and the taps in both steps. Text encoder, VAE and the encoders of the
expression are on neither side. Memory does not depend on the weights' values.

On CPUs two peaks are counted. "Own memory" is what the process must have (RssAnon of Linux, looked at every few
milliseconds). "With files" is VmHWM, its resident pages at their most, with those that are mapped from files, which the
system may take back at any time. On CUDA it is what torch's allocator had given out at its most.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from lib_hellomeme.checkpoints.catalog import GENERATIONS, files_of
from lib_hellomeme.checkpoints.layouts import LAYOUTS, build_on_meta
from lib_hellomeme.checkpoints.load import placed
from lib_hellomeme.errors import HostError
from lib_hellomeme.face.track import FaceFrame
from lib_hellomeme.recipes.hellomeme import Reenactment
from lib_hellomeme.recipes.reenact import controls, load_networks
from lib_hellomeme.standalone.benchmark import full_unet, random_call, run_step
from lib_hellomeme.standalone.timing import STATUS, status_megabytes
from lib_hellomeme.unet.diffusers import DiffusersPort
from lib_hellomeme.unet.port import Call

STEPS = 2
INTERVAL = 0.002  # s

Peaks = dict[str, float]  # what was counted -> MB at its most


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = list(GENERATIONS)
    parser.add_argument("--generation", nargs="+", choices=names, default=names, metavar="NAME", help="default: all")
    parser.add_argument("--size", nargs="+", type=int, default=[256, 512], help="sides of the picture in px (256 512)")
    parser.add_argument("--models", metavar="DIR", help="folder of weight files (default: made for the run)")
    parser.add_argument("--device", default="cpu", help="where to run (default: %(default)s)")
    parser.add_argument("--half", action="store_true", help="float16 instead of float32")


def run(arguments: argparse.Namespace) -> None:
    """Raises HostError where memory cannot be measured."""
    if arguments.device == "cpu" and not STATUS.exists():
        raise HostError("only Linux tells the peak memory of a process: use Linux, or --device cuda")
    print(f"two rows, {'float16' if arguments.half else 'float32'} on {arguments.device}")
    where = (arguments.device, arguments.half)
    plain = {size: _in_own_process(_measure, size, *where) for size in arguments.size}
    for generation in arguments.generation:
        with tempfile.TemporaryDirectory() as folder:
            if arguments.models is None:
                _in_own_process(_write, generation, folder)
            for size in arguments.size:
                full = _in_own_process(_measure, size, *where, generation, arguments.models or folder)
                for counted, peak in plain[size].items():
                    added = full[counted] - peak
                    print(f"{generation} {size} px, {counted}: plain {peak:.0f} MB, added {added:.0f} MB", flush=True)


def _in_own_process(function: Callable[..., Any], *arguments: object) -> Any:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def _write(generation: str, folder: str) -> None:
    """The generation's files as they are published, in float16, all zeros."""
    for file in files_of(generation, "arkit"):
        network = build_on_meta(LAYOUTS[file.layout or ""], {})
        tensors = {name: torch.zeros(value.shape, dtype=torch.float16) for name, value in network.state_dict().items()}
        save_file(tensors, Path(folder) / file.local_name)


@torch.inference_mode()
def _measure(size: int, device_name: str, half: bool, generation: str = "", models: str = "") -> Peaks:
    """The peaks of one side: plain where there is no generation."""
    device, dtype = torch.device(device_name), torch.float16 if half else torch.float32
    port = DiffusersPort(full_unet().to(device, dtype))
    call = random_call(size, device, dtype)
    run_step(port, call)  # what torch keeps for later is no part of the peak
    with _peaks(device) as peaks:
        if generation:
            _draw(port, call, generation, Path(models))
        else:
            for _ in range(STEPS):
                run_step(port, call)
    return peaks


def _draw(port: DiffusersPort, call: Call, generation: str, models: Path) -> None:
    """What `recipes.reenact` does, save for the pictures."""
    networks = load_networks(generation, models)
    height, width = (8 * side for side in call.sample.shape[-2:])
    head = np.array([0.0, 0.0, -10.0])
    face = FaceFrame(Fraction(0), width, height, True, np.zeros(3), head, np.zeros(51))
    faces = [face, face] if generation == "v5c" else [face]
    control, *write_control = controls(networks, faces, None, port.device, port.dtype)
    layers = placed(networks.reference, port.device, port.dtype).sites()
    reenactment = Reenactment(port, layers, call.sample[1:], control, write_control[0] if write_control else None)
    with port.attach(reenactment.taps(), lambda *_: call, reenactment.begin):
        for _ in range(STEPS):
            run_step(port, call)


@contextmanager
def _peaks(device: torch.device) -> Iterator[Peaks]:
    """Filled in at the end of the context."""
    peaks: Peaks = {}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield peaks
        peaks["given out by torch"] = torch.cuda.max_memory_allocated(device) / 1e6
        return
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(INTERVAL):
            peaks["own memory"] = max(peaks.get("own memory", 0.0), status_megabytes("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peaks
    finally:
        ended.set()
        watcher.join()
    peaks["with files"] = status_megabytes("VmHWM")

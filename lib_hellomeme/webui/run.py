"""One generation of a webui, hook by hook. Everything it needs lies on `p`: cells of an X/Y/Z plot are copies of p.

A user's mistake, a missing file or an unfit model costs the effect and not the picture: the webui goes on without us,
and one line in its answer says why.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lib_hellomeme.errors import HostError
from lib_hellomeme.recipes.hellomeme import Reenactment
from lib_hellomeme.recipes.reenact import Networks, Portrait, limits, read_portrait, reenact
from lib_hellomeme.settings import OPTION_FIELDS, Settings, infotext_key
from lib_hellomeme.unet.forge import ForgePort
from lib_hellomeme.unet.ldm import LdmPort
from lib_hellomeme.webui import notes
from lib_hellomeme.webui.arguments import PICTURES, Request, read_request
from lib_hellomeme.webui.host import Host, host_of, marked, taps_attached, within_sampling
from lib_hellomeme.webui.notes import note_error, note_key
from lib_hellomeme.webui.original import Conds, Look, find_original, look_of
from lib_hellomeme.webui.weights import check_complete, folder, networks_of

WHO = "HelloMeme"
NOTE = note_key(WHO)
AXES = "hellomeme_axes"  # where on p an X/Y/Z plot's cell keeps what it decides
FINDING = ("face_box", "extractor", "which_face")  # the options that decide which face is found


@dataclass(frozen=True)
class Run:
    """What one generation was asked for, with everything found that it needs."""

    settings: Settings
    portrait: Portrait
    networks: Networks


def prepare(p: Any, arguments: Any) -> None:
    """The hook `process`: read what is asked, find the faces, load the networks."""
    p.hellomeme = None
    own = {NOTE, *map(infotext_key, OPTION_FIELDS)}
    p.extra_generation_params = {key: value for key, value in p.extra_generation_params.items() if key not in own}
    try:
        request = read_request(arguments, getattr(p, AXES, None))
        if not request.settings.enabled:
            return
        if not hasattr(p.scripts, "process_before_every_sampling"):
            raise HostError("This webui is too old: use AUTOMATIC1111 1.10 or Forge.")
        check_complete(request.settings)
        find_original(request.settings)
        portrait = read_pictures(request)
        networks = networks_of(request.settings)
        p.hellomeme = Run(request.settings, portrait, networks)
    except Exception as error:
        refuse(p, error)
        return
    p.extra_generation_params |= request.settings.to_infotext()
    for warning in [*portrait.warnings, *limits(request.settings, networks, portrait)]:
        note(p, warning)


def prepare_sampling(p: Any, latents: Tensor, conds: Conds) -> None:
    """The hook `process_before_every_sampling`: make the taps of a sampling of these latents (n, 4, h, w) and prompts,
    and have them attached for as long as it lasts. Forge calls it twice before a hires pass and forgets the first."""
    run: Run | None = getattr(p, "hellomeme", None)
    if run is None:
        return
    try:
        host = host_of(p)
        host.check(p)
        host.reserve(p, _needed(run, host.port(p)))
        if marked(p.sampler, WHO) == latents.shape:
            return
        height, width = (8 * side for side in latents.shape[-2:])
        look = look_of(p, host, run.settings, conds)
        reenactment = reenact(
            host.port(p), run.networks, run.settings, run.portrait, width, height, look.encode, source=look.source
        )
        within_sampling(p.sampler, WHO, lambda: attached(p, host, reenactment, look), latents.shape)
    except Exception as error:
        refuse(p, error)


@contextmanager
def attached(p: Any, host: Host, reenactment: Reenactment, look: Look) -> Iterator[None]:
    """The taps in p's UNet, and the look's prompts in p's sampler. An error of ours silences the taps for the rest of
    the sampling instead of ending it."""
    look.give_prompts(p.sampler)
    with taps_attached(p, host, reenactment, lambda error: refuse(p, error, "let go while drawing.")) as last:
        yield
    if not last():
        note(p, "The refiner drew its steps without HelloMeme.")


def refuse(p: Any, error: Exception, what: str = "not used.") -> None:
    """Let the webui go on without us, and say `what` happened and why.

    Raises `error` again where it is no user's mistake but a defect: the webui then logs it, and goes on too.
    """
    p.hellomeme = None
    for name in OPTION_FIELDS:
        p.extra_generation_params.pop(infotext_key(name), None)
    note_error(p, WHO, error, what)


def note(p: Any, text: str) -> None:
    notes.note(p, WHO, text)


def read_pictures(request: Request) -> Portrait:
    """The two pictures and the faces in them, or PictureError, FaceError, DependencyError."""
    pictures = (Pixels(request.picture(name)) for name in PICTURES)
    finding = {name: getattr(request.settings, name) for name in FINDING}
    return _read_portrait(*pictures, tuple(finding.items()), folder())


class Pixels:
    """A picture, RGB uint8 (H, W, 3), that is equal to any of the same content."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.content = (array.shape, sha256(array.tobytes()).digest())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pixels) and self.content == other.content

    def __hash__(self) -> int:
        return hash(self.content)


@lru_cache(maxsize=2)  # so that a plot, or Generate after a look, does not search again
def _read_portrait(reference: Pixels, driving: Pixels, finding: tuple[tuple[str, str], ...], models: Path) -> Portrait:
    return read_portrait(Settings.from_mapping(dict(finding)), reference.array, driving.array, models)


def _needed(run: Run, port: LdmPort | ForgePort) -> int:
    """Bytes of the GPU's memory: for the reference layers and what they prepare, and in x1 for the original UNet."""
    unet = _bytes(port.unet, port.dtype) if run.settings.reference_pass == "x1" else 0
    return 2 * _bytes(run.networks.reference, port.dtype) + unet


def _bytes(module: nn.Module, dtype: torch.dtype) -> int:
    """What its tensors take in this type."""
    return sum(tensor.numel() for tensor in (*module.parameters(), *module.buffers())) * torch.finfo(dtype).bits // 8

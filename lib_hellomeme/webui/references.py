"""One generation with reference units, hook by hook. Everything it needs lies on `p`: cells of an X/Y/Z plot are copies
of p. What cannot be done costs the effect and not the picture, and one line says why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from lib_hellomeme.errors import HostError
from lib_hellomeme.face.fit import fit_pixels
from lib_hellomeme.recipes.reference import ReferenceUnits, Unit
from lib_hellomeme.webui import notes
from lib_hellomeme.webui.host import Host, host_of, marked, taps_attached, within_sampling
from lib_hellomeme.webui.reference_settings import Request, infotext_prefix, is_unit_key, read_requests

WHO = "HelloMeme references"
AXES = "hellomeme_reference_axes"  # where on p an X/Y/Z plot's cell keeps what it decides
BANK_NUMBERS = 44  # that one written row keeps for each px of the picture: 2820 for each px of its latents


def prepare(p: Any, arguments: Sequence[Any]) -> None:
    """The hook `process`: read what is asked."""
    p.hellomeme_references = []
    kept = {key: value for key, value in p.extra_generation_params.items() if key != notes.note_key(WHO)}
    p.extra_generation_params = {key: value for key, value in kept.items() if not is_unit_key(key)}
    try:
        requests = read_requests(arguments, getattr(p, AXES, None))
        if requests and not hasattr(p.scripts, "process_before_every_sampling"):
            raise HostError("This webui is too old: use AUTOMATIC1111 1.10 or Forge.")
    except Exception as error:
        refuse(p, error)
        return
    p.hellomeme_references = requests
    for request in requests:
        p.extra_generation_params |= request.settings.to_infotext(infotext_prefix(request.number))


def prepare_sampling(p: Any, latents: Tensor) -> None:
    """The hook `process_before_every_sampling`: make the taps of a sampling of these latents (n, 4, h, w) and have them
    attached for as long as it lasts. Forge calls it twice before a hires pass and forgets the first."""
    requests: list[Request] = getattr(p, "hellomeme_references", [])
    if not requests:
        return
    try:
        host = host_of(p)
        host.check(p)
        host.refuse_references(p)
        height, width = (8 * side for side in latents.shape[-2:])
        written = len(requests) * 2 * len(latents) * height * width * BANK_NUMBERS
        host.reserve(p, 2 * written * torch.finfo(host.port(p).dtype).bits // 8)  # and as much for keys and values
        if marked(p.sampler, WHO) == latents.shape:
            return
        units = [unit_of(p, host, request, width, height) for request in requests]
        recipe = ReferenceUnits(host.port(p), units, host.alphas_cumprod(p), p.seeds)
        within_sampling(p.sampler, WHO, lambda: attached(p, host, recipe), latents.shape)
    except Exception as error:
        refuse(p, error)


def unit_of(p: Any, host: Host, request: Request, width: int, height: int) -> Unit:
    """The unit for a picture of width x height px."""
    settings = request.settings
    picture, _ = fit_pixels(request.picture, width, height, settings.fit)
    look = None
    if request.look is not None:
        drawn = cv2.resize(request.look, request.picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        look = _mask(fit_pixels(drawn, width, height, settings.fit)[0])
    return Unit(
        host.encode(p, picture),
        settings.kind,
        settings.weight,
        settings.fidelity,
        settings.mode,
        settings.start,
        settings.end,
        settings.strength,
        look,
        None if request.apply is None else _mask(request.apply),
        settings.how_written(lambda: host.empty_prompt(p)),
    )


def _mask(values: np.ndarray) -> Tensor:
    """uint8 (h, w) to (1, 1, h, w) in [0, 1]."""
    return torch.from_numpy(values)[None, None].float() / 255


@contextmanager
def attached(p: Any, host: Host, recipe: ReferenceUnits) -> Iterator[None]:
    """The units' taps in p's UNet."""
    with taps_attached(p, host, recipe, lambda error: refuse(p, error, "let go while drawing.")) as last:
        yield
    if not last():
        notes.note(p, WHO, "The refiner drew its steps without the references.")


def refuse(p: Any, error: Exception, what: str = "not used.") -> None:
    """Let the webui go on without us, and say `what` happened and why. Raises `error` again where it is a defect."""
    p.hellomeme_references = []
    for key in [key for key in p.extra_generation_params if is_unit_key(key)]:
        del p.extra_generation_params[key]
    notes.note_error(p, WHO, error, what)

"""What a user asks for becomes the taps of one sampling, the same way in every host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lib_hellomeme.checkpoints.catalog import files_of, find, need
from lib_hellomeme.checkpoints.load import load_network
from lib_hellomeme.errors import FaceError
from lib_hellomeme.face.extract import track_picture
from lib_hellomeme.face.fit import fit_picture
from lib_hellomeme.face.track import FaceTrack, retarget
from lib_hellomeme.networks.control import ProjectedControl
from lib_hellomeme.networks.reference import ReferenceAdapter
from lib_hellomeme.recipes.hellomeme import Reenactment, control_features
from lib_hellomeme.settings import Settings
from lib_hellomeme.unet.port import Port

EXPRESSION = "arkit"  # what the face extractors measure; the PD-FGC encoder is not connected yet


@dataclass(frozen=True)
class Networks:
    """The networks of one generation, on the CPU between their uses."""

    reference: ReferenceAdapter
    control: nn.Module
    writes_with_control: bool  # v5c: the write pass takes control too


def load_networks(generation: str, *folders: Path) -> Networks:
    """The networks of a generation (a key of GENERATIONS) from files in these folders, in float32 on the CPU.

    Raises MissingFileError that names the first file that is not there, CheckpointError for one that is not what it
    should be.
    """
    files = files_of(generation, EXPRESSION)
    paths = need(find(*folders), files)
    reference, *control = (load_network(paths[file.key], (file.layout,)) for file in files if file.layout)
    assert isinstance(reference, ReferenceAdapter)
    reference.fold()
    network = ProjectedControl(*control) if len(control) == 2 else control[0]  # v4 and later: base and projection
    return Networks(reference, network, writes_with_control=generation == "v5c")


@dataclass(frozen=True)
class Portrait:
    """A reference picture, RGB uint8 (H, W, 3), the driving one, and what was found in them."""

    picture: np.ndarray
    track: FaceTrack
    driving: FaceTrack

    @property
    def warnings(self) -> list[str]:
        """One line for everything that was not found or had to be chosen."""
        named = (("Reference", self.track), ("Driving picture", self.driving))
        return [f"{name}: {warning}." for name, track in named for warning in track.warnings]


def read_portrait(settings: Settings, reference: np.ndarray, driving: np.ndarray) -> Portrait:
    """Find the faces in two pictures, RGB uint8 (H, W, 3). Raises FaceError where the driving picture shows none."""
    driver = track_picture(driving)
    if not driver.frames[0].found:
        raise FaceError("No face was found in the driving picture: choose one that shows a face from the front.")
    return Portrait(reference, track_picture(reference, settings.box()), driver)


def reenact(
    port: Port,
    networks: Networks,
    settings: Settings,
    portrait: Portrait,
    width: int,
    height: int,
    encode: Callable[[np.ndarray], Tensor],
) -> Reenactment:
    """The taps of one sampling at width x height px.

    `encode` makes the latents (1, 4, height / 8, width / 8), scaled, of a picture (height, width, 3): the mean of the
    VAE's posterior, so that every host gives the same. Raises HostError for a UNet that cannot be served.
    """
    picture, face, _ = fit_picture(portrait.picture, portrait.track.frames[0], width, height, settings.fit)
    target = retarget(portrait.driving.frames[0], face, settings.pose_weight, settings.expression_weight)
    with placed(networks.control, port.device, port.dtype) as network:
        control = control_features(network, [target], port.device, port.dtype)
        own = control_features(network, [face], port.device, port.dtype) if networks.writes_with_control else None
    return Reenactment(
        port,
        networks.reference.to(port.device, port.dtype).sites(),
        encode(picture),
        control,
        own,
        settings.reference_weight,
        settings.start,
        settings.end,
    )


@contextmanager
def placed(network: nn.Module, device: torch.device, dtype: torch.dtype) -> Iterator[nn.Module]:
    """The network on `device` while the context lasts; afterwards its memory there is free again."""
    home = next(network.parameters()).device
    try:
        yield network.to(device, dtype)
    finally:
        network.to(home)

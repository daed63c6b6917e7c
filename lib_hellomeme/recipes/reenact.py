"""What a user asks for becomes the taps of one sampling, the same way in every host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lib_hellomeme.checkpoints.catalog import files_of, find, need
from lib_hellomeme.checkpoints.load import load_network, placed
from lib_hellomeme.errors import FaceError
from lib_hellomeme.face.edit import changed_groups, neutral_frame, numbered_frame, retarget
from lib_hellomeme.face.extract import track_picture
from lib_hellomeme.face.fit import fit_picture
from lib_hellomeme.face.track import FaceFrame, FaceTrack
from lib_hellomeme.networks.control import ProjectedControl
from lib_hellomeme.networks.expression import Expression, ExpressionKind
from lib_hellomeme.networks.reference import ReferenceAdapter
from lib_hellomeme.recipes.embeddings import pd_fgc_of_nobody, with_face_parts, with_pd_fgc
from lib_hellomeme.recipes.hellomeme import OWN, Control, Reenactment, Source, control_features
from lib_hellomeme.settings import Settings
from lib_hellomeme.unet.port import Port

OPTIONAL_ENCODER = "image_encoder"  # CLIP's vision tower; without it the networks get zeros for the face's parts


@dataclass(frozen=True)
class Networks:
    """The networks of one generation as they are stored; each use makes a copy that computes, and lets go of it.

    `encoder` makes the embeddings that go with this kind of expression: PD-FGC's, or CLIP's of the face's parts.
    """

    generation: str
    expression: ExpressionKind
    reference: ReferenceAdapter
    control: nn.Module
    encoder: nn.Module | None


def load_networks(generation: str, *folders: Path, expression: ExpressionKind = "arkit") -> Networks:
    """The networks of a generation (a key of GENERATIONS) from files in these folders.

    Raises MissingFileError that names the first file that is not there, CheckpointError for one that is not what it
    should be.
    """
    found = find(*folders)
    files = files_of(generation, expression)
    paths = need(found, files)
    networks: list[Any] = [load_network(paths[file.key], (file.layout,)) for file in files if file.layout]
    reference, *others = networks
    assert isinstance(reference, ReferenceAdapter)
    reference.fold()
    encoder = others.pop() if expression == "pdfgc" else None
    if expression == "arkit" and OPTIONAL_ENCODER in found:
        encoder = load_network(found[OPTIONAL_ENCODER].path)
    control = ProjectedControl(*others) if len(others) == 2 else others[0]  # v4 and later: base and projection
    return Networks(generation, expression, reference, control, encoder)


@dataclass(frozen=True)
class Seen:
    """A picture, RGB uint8 (H, W, 3), and what was found in it."""

    picture: np.ndarray
    track: FaceTrack

    @property
    def face(self) -> FaceFrame:
        return self.track.frames[0]


@dataclass(frozen=True)
class Recorded:
    """What a frame of a driving track is driven from, see `retarget`."""

    neutral: FaceFrame | None
    first: FaceFrame


@dataclass(frozen=True)
class Portrait:
    """The reference picture and the driving one, or a frame of a driving track, whose picture is black."""

    reference: Seen
    driving: Seen
    recorded: Recorded | None = None

    @property
    def warnings(self) -> list[str]:
        """One line for everything that was not found or had to be chosen."""
        driving = "Driving track" if self.recorded else "Driving picture"
        named = (("Reference", self.reference), (driving, self.driving))
        return [f"{name}: {warning}." for name, seen in named for warning in seen.track.warnings]


def read_portrait(
    settings: Settings, reference: np.ndarray, driving: np.ndarray, models: Path | None = None
) -> Portrait:
    """Find the faces in two pictures, RGB uint8 (H, W, 3), with the extractors whose files are in `models`.

    Raises FaceError where the driving picture shows none.
    """
    wanted: dict[str, Any] = {"extractor": settings.extractor, "models": models}
    driver = Seen(driving, track_picture(driving, which=settings.which_face, reference=reference, **wanted))
    if not driver.face.found:
        raise FaceError("No face was found in the driving picture: choose one that shows a face from the front.")
    return Portrait(Seen(reference, track_picture(reference, settings.box(), **wanted)), driver)


def read_recorded(
    settings: Settings,
    reference: np.ndarray,
    track: FaceTrack,
    number: int = 0,
    neutral: str = "absolute",
    models: Path | None = None,
) -> Portrait:
    """Find the face in the reference, RGB uint8 (H, W, 3), that this frame of a track drives, counted from 0.

    `neutral` is what `neutral_frame` takes. Raises FaceError where there is no such frame.
    """
    frame = numbered_frame(track, number)
    recorded = Recorded(neutral_frame(track, neutral), track.frames[0])
    black = np.zeros((frame.height, frame.width, 3), np.uint8)
    unseen = (f"the face was not found in frame {number}, which was filled in",) * (not frame.found)
    driver = replace(track, frames=(frame,), warnings=track.warnings + unseen)
    seen = track_picture(reference, settings.box(), extractor=settings.extractor, models=models)
    return Portrait(Seen(reference, seen), Seen(black, driver), recorded)


def limits(settings: Settings, networks: Networks, portrait: Portrait) -> list[str]:
    """One line for each wish that these networks cannot hear."""
    if networks.encoder is None:
        return []
    lines = []
    if changed_groups(settings):
        whose, remedy = ("PD-FGC", ": choose Expression from arkit") if networks.expression == "pdfgc" else ("CLIP", "")
        lines.append(f"Gains of parts of the face act on coefficients, not on {whose}'s embeddings{remedy}.")
    if portrait.recorded and networks.expression == "arkit" and portrait.driving.face.face_parts is None:
        lines.append("Driving track: it holds no CLIP embeddings of eyes and mouth; zeros are taken.")
    return lines


def reenact(
    port: Port,
    networks: Networks,
    settings: Settings,
    portrait: Portrait,
    width: int,
    height: int,
    encode: Callable[[np.ndarray], Tensor],
    source: Source = OWN,
) -> Reenactment:
    """The taps of one sampling at width x height px.

    `encode` makes the latents (1, 4, height / 8, width / 8), scaled, of a picture (height, width, 3): the mean of the
    VAE's posterior, so that every host gives the same. `source` says what the write pass runs on. Raises HostError for
    a UNet that cannot be served.
    """
    own, driver, nobody = embedded(networks, portrait, port.device, port.dtype)
    picture, face, _ = fit_picture(portrait.reference.picture, own, width, height, settings.fit)
    recorded = portrait.recorded
    target = retarget(driver, face, settings, *((recorded.neutral, recorded.first) if recorded else ()))
    faces = [target, face] if networks.generation == "v5c" else [target]  # v5c's write pass takes control too
    control, *write_control = controls(networks, faces, nobody, port.device, port.dtype)
    return Reenactment(
        port,
        placed(networks.reference, port.device, port.dtype).sites(),
        encode(picture),
        control,
        write_control[0] if write_control else None,
        settings.reference_weight,
        settings.start,
        settings.end,
        source,
    )


def embedded(
    networks: Networks, portrait: Portrait, device: torch.device, dtype: torch.dtype
) -> tuple[FaceFrame, FaceFrame, np.ndarray | None]:
    """The reference's and the driver's face with the embeddings that the networks take, and nobody's embedding, None
    where it is zero. Raises FaceError for a driving track without the embeddings that the networks need."""
    own, driver = portrait.reference, portrait.driving
    if networks.encoder is None:
        return own.face, driver.face, None
    encoder = placed(networks.encoder, device, dtype)
    embed = with_pd_fgc if networks.expression == "pdfgc" else with_face_parts
    if portrait.recorded and networks.expression == "pdfgc" and driver.face.pd_fgc is None:
        raise FaceError("The driving track holds no PD-FGC embeddings: choose Expression from arkit.")
    driving_face = driver.face if portrait.recorded else embed(encoder, driver.picture, driver.face)
    shown_nobody = networks.expression == "pdfgc" and networks.generation in ("v1", "v2")
    return embed(encoder, own.picture, own.face), driving_face, pd_fgc_of_nobody(encoder) if shown_nobody else None


def controls(
    networks: Networks, faces: Sequence[FaceFrame], nobody: np.ndarray | None, device: torch.device, dtype: torch.dtype
) -> list[Control]:
    """The control of each face, all of one size. A network is let go after its pass, the base before the projection."""
    control = networks.control

    def network(condition: Tensor, expression: Expression) -> dict[str, Tensor]:
        if not isinstance(control, ProjectedControl):
            return placed(control, device, dtype)(condition, expression)
        features = placed(control.base, device, dtype)(condition, expression)
        return placed(control.projection, device, dtype)(features)

    residuals = control_features(network, faces, device, dtype, networks.expression, nobody)
    return [{site: rows[[0, 1 + index]] for site, rows in residuals.items()} for index in range(len(faces))]

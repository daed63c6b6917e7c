"""How well the system works, measured in the drawn world, where the truth is known.

Unseen people are drawn by the embedded host as a user would have them drawn, and a measuring network tells pose,
expression and identity of the result (training/measure.py). The prompt is empty, as captions would tell most of what
the reference shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

from lib_hellomeme.face.camera import rotation_matrix
from lib_hellomeme.face.edit import retarget
from lib_hellomeme.face.track import ARKIT_INDEX, ARKIT_NAMES, FaceFrame, FaceTrack
from lib_hellomeme.recipes.reenact import Portrait, Seen
from lib_hellomeme.recipes.reference import ReferenceUnits, Unit
from lib_hellomeme.settings import Settings
from lib_hellomeme.standalone.drawing import Drawing, decode_latents, draw, encode_picture
from lib_hellomeme.standalone.host import EmbeddedHost
from lib_hellomeme.training.diffusion import signal_power
from lib_hellomeme.training.faces import random_face
from lib_hellomeme.training.identity import Identity, random_identity
from lib_hellomeme.training.measure import (
    EXPRESSIONS,
    Measured,
    MeasuringNetwork,
    identity_error,
    measure,
    pose_error,
)
from lib_hellomeme.training.people import Rendering, render
from lib_hellomeme.unet.diffusers import DiffusersPort
from lib_hellomeme.unet.port import AnyTap, Call

EVALUATION = 0x5EED  # beside the seed: these people are in no training set
TRUTH = "rendered truth"  # the wanted picture itself: what measuring makes of a perfect answer
REBUILT = "truth through the VAE"  # what drawing in latents costs
FULL, NO_REFERENCE, NO_CONTROL, TEXT = "HelloMeme", "reference off", "control off", "text alone"
VARIANTS = (TRUTH, REBUILT, FULL, NO_REFERENCE, NO_CONTROL, TEXT)


@dataclass(frozen=True)
class Case:
    """Somebody who is to take on another's pose and expression."""

    portrait: Portrait
    who: Identity
    driver: Identity
    wanted: Rendering  # the person with the driver's pose and expression
    seed: int

    @property
    def face(self) -> FaceFrame:
        """The pose and expression that are wanted."""
        return self.wanted.face


def unseen_case(seed: int, index: int, size: int) -> Case:
    """The case with this index, size x size px."""
    generator = np.random.default_rng([seed, index, EVALUATION])
    who, driver = random_identity(generator), random_identity(generator)
    shown, driving = (render(one, random_face(generator, size)) for one in (who, driver))
    wanted = render(who, retarget(driving.face, shown.face, Settings()))
    return Case(Portrait(seen(shown), seen(driving)), who, driver, wanted, index)


def seen(rendering: Rendering) -> Seen:
    """A rendering with its truth for a track: extractors may find no face in a drawing."""
    return Seen(rendering.picture, FaceTrack(Fraction(1), (rendering.face,), frozenset(ARKIT_NAMES), "drawn"))


@dataclass(frozen=True)
class Artist:
    """Draws cases by the host. `tick` is called after each picture."""

    host: EmbeddedHost
    size: int  # px
    steps: int
    cfg: float
    tick: Callable[[], object]

    def variant(self, name: str, case: Case) -> np.ndarray:
        """RGB uint8 (size, size, 3): the case as one of VARIANTS."""
        if name == TRUTH:
            return case.wanted.picture
        if name == REBUILT:
            vae = self.host.model.vae
            return self._drawn(decode_latents(vae, encode_picture(vae, case.wanted.picture)))
        if name == TEXT:
            return self.text(case, case.who.caption)
        return self.reenact(case, control=name != NO_CONTROL, reference_weight=float(name != NO_REFERENCE))

    def reenact(self, case: Case, cfg: float | None = None, control: bool = True, **wishes: float) -> np.ndarray:
        """With HelloMeme; `wishes` are options of Settings."""
        settings = Settings.from_mapping({"enabled": True, "fit": "crop", **wishes})
        drawing = self._drawing(case, "", cfg)
        reenactment = self.host.reenactment(case.portrait, settings, drawing)
        if not control:
            reenactment.control, reenactment.write_control = {}, None
        return self._drawn(draw(self.host.model, drawing, reenactment, progress=False))

    def text(self, case: Case, prompt: str) -> np.ndarray:
        """By the checkpoint alone."""
        return self._drawn(self.host.draw(self._drawing(case, prompt), progress=False))

    def with_unit(self, case: Case, prompt: str, weight: float = 1.0, fidelity: float = 0.5) -> np.ndarray:
        """By the prompt and a reference-only unit with the case's reference."""
        model = self.host.model
        port = DiffusersPort(model.unet)
        unit = Unit(encode_picture(model.vae, case.portrait.reference.picture), weight=weight, fidelity=fidelity)
        units = AttachedUnits(port, ReferenceUnits(port, [unit], signal_power(), (case.seed,)))
        return self._drawn(draw(model, self._drawing(case, prompt), units, progress=False))

    def _drawing(self, case: Case, prompt: str, cfg: float | None = None) -> Drawing:
        cfg = self.cfg if cfg is None else cfg
        return Drawing(prompt, steps=self.steps, cfg=cfg, seed=case.seed, width=self.size, height=self.size)

    def _drawn(self, picture: np.ndarray) -> np.ndarray:
        self.tick()
        return picture


@dataclass(frozen=True)
class AttachedUnits:
    """Reference units as `draw` takes them."""

    port: DiffusersPort
    units: ReferenceUnits

    def taps(self) -> Sequence[AnyTap]:
        return self.units.taps()

    def begin(self, call: Call) -> Call | None:
        return self.units.begin(call)


def score(network: MeasuringNetwork, cases: Sequence[Case], pictures: Sequence[np.ndarray]) -> dict[str, float]:
    """Means over the cases: pose error in degrees, correlations of EXPRESSIONS with the driver's, identity error."""
    found, shown = measured(network, pictures), measured(network, [case.portrait.reference.picture for case in cases])
    pairs = list(zip(found, cases, strict=True))
    scores = {"pose": mean(pose_error(one, case.face.rotation) for one, case in pairs)}
    for name in EXPRESSIONS:
        scores[name] = correlation(
            [one.expression(name) for one in found], [true_expression(case.face, name) for case in cases]
        )
    scores["identity"] = mean(map(identity_error, found, shown))
    return {name: round(value, 4) for name, value in scores.items()}


def measured(network: MeasuringNetwork, pictures: Sequence[np.ndarray]) -> list[Measured]:
    return measure(network, np.stack(pictures))


def true_expression(face: FaceFrame, name: str) -> float:
    """A key of EXPRESSIONS, in [0, 1]."""
    return mean(face.coefficients[ARKIT_INDEX[part]] for part in EXPRESSIONS[name])


def correlation(values: Sequence[float], truth: Sequence[float]) -> float:
    """Pearson's; 0 where one of them is constant."""
    if np.ptp(values) == 0 or np.ptp(truth) == 0:
        return 0.0
    return float(np.corrcoef(values, truth)[0, 1])


def mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


Pictures = Sequence[Sequence[np.ndarray]]  # for each value of a slider those of all cases


@dataclass(frozen=True)
class Effect:
    """Something that a slider moves one way: a number for each value."""

    moves: str
    numbers: Callable[[MeasuringNetwork, Sequence[Case], Pictures], list[float]]
    rises: bool = True


@dataclass(frozen=True)
class Slider:
    """A control that users have."""

    values: tuple[float, ...]
    draw: Callable[[Artist, Case, float], np.ndarray]
    effects: tuple[Effect, ...]


def sweep(slider: Slider, artist: Artist, network: MeasuringNetwork, cases: Sequence[Case]) -> list[dict[str, Any]]:
    """For each effect its numbers at the slider's values, and whether they are monotone."""
    pictures = [[slider.draw(artist, case, value) for case in cases] for value in slider.values]
    found = []
    for effect in slider.effects:
        numbers = [round(number, 4) for number in effect.numbers(network, cases, pictures)]
        found.append(
            {
                "moves": effect.moves,
                "values": list(slider.values),
                "numbers": numbers,
                "monotone": is_monotone(numbers, effect.rises),
            }
        )
    return found


def is_monotone(values: Sequence[float], rises: bool) -> bool:
    """Never a step back, and not all the same."""
    ordered = values if rises else values[::-1]
    return all(a <= b for a, b in pairwise(ordered)) and ordered[0] < ordered[-1]


def distance(network: MeasuringNetwork, cases: Sequence[Case], pictures: Pictures) -> list[float]:
    """Mean difference from the first value's pictures, of 255."""
    first = np.stack(pictures[0]).astype(np.float64)
    return [float(np.abs(np.stack(row) - first).mean()) for row in pictures]


def unlike_reference(network: MeasuringNetwork, cases: Sequence[Case], pictures: Pictures) -> list[float]:
    """Mean identity error."""
    return _unlike(network, [case.portrait.reference.picture for case in cases], pictures)


def unlike_driver(network: MeasuringNetwork, cases: Sequence[Case], pictures: Pictures) -> list[float]:
    """Mean identity error against the driver."""
    return _unlike(network, [case.portrait.driving.picture for case in cases], pictures)


def _unlike(network: MeasuringNetwork, shown: Sequence[np.ndarray], pictures: Pictures) -> list[float]:
    own = measured(network, shown)
    return [mean(map(identity_error, measured(network, row), own)) for row in pictures]


def turned(network: MeasuringNetwork, cases: Sequence[Case], pictures: Pictures) -> list[float]:
    """How far the heads have turned from the reference's pose to the driver's: 0 not at all, 1 all the way."""
    starts = [case.portrait.reference.face.rotation for case in cases]
    ways = np.stack([arc(start, case.face.rotation) for start, case in zip(starts, cases, strict=True)])
    found = [[one.rotation for one in measured(network, row)] for row in pictures]
    return [share(np.stack(list(map(arc, starts, row))), ways) for row in found]


def expressed(network: MeasuringNetwork, cases: Sequence[Case], pictures: Pictures) -> list[float]:
    """How far the expressions have gone from the reference's to the driver's, like `turned`."""
    starts, ends = (
        np.array([[true_expression(face, name) for name in EXPRESSIONS] for face in faces])
        for faces in ([case.portrait.reference.face for case in cases], [case.face for case in cases])
    )
    found = [[[one.expression(name) for name in EXPRESSIONS] for one in measured(network, row)] for row in pictures]
    return [share(np.array(row) - starts, ends - starts) for row in found]


def arc(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """(3,) the axis of the turn between two rotations, as long as its angle."""
    return cv2.Rodrigues(rotation_matrix(start).T @ rotation_matrix(end))[0][:, 0]


def share(moved: np.ndarray, ways: np.ndarray) -> float:
    """Which part of these ways has been gone, by least squares."""
    return float((moved * ways).sum() / (ways * ways).sum())


WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
SLIDERS: Mapping[str, Slider] = {
    "guidance": Slider(
        (1.0, 2.0, 3.0, 5.0, 8.0),
        lambda artist, case, value: artist.reenact(case, cfg=value),
        (Effect("distance from the picture without guidance, of 255", distance),),
    ),
    "reference weight": Slider(
        WEIGHTS,
        lambda artist, case, value: artist.reenact(case, reference_weight=value),
        (Effect("identity error", unlike_reference, rises=False),),
    ),
    "pose weight": Slider(
        (*WEIGHTS, 1.5),
        lambda artist, case, value: artist.reenact(case, pose_weight=value),
        (Effect("share of the turn to the driver's pose", turned),),
    ),
    "expression weight": Slider(
        (*WEIGHTS, 1.5),
        lambda artist, case, value: artist.reenact(case, expression_weight=value),
        (Effect("share of the way to the driver's expression", expressed),),
    ),
    # The prompt says nothing: at weight 0 this is plain text-to-image.
    "reference-only weight": Slider(
        (0.0, 0.2, 0.4, 0.7, 1.0),
        lambda artist, case, value: artist.with_unit(case, "", weight=value),
        (Effect("identity error", unlike_reference, rises=False),),
    ),
    # The prompt names another person than the reference shows.
    "style fidelity": Slider(
        WEIGHTS,
        lambda artist, case, value: artist.with_unit(case, case.driver.caption, fidelity=value),
        (
            Effect("identity error", unlike_reference, rises=False),
            Effect("identity error against the person that the prompt names", unlike_driver),
        ),
    ),
}
UNITS = ("reference-only weight", "style fidelity")  # the sliders that need the checkpoint alone

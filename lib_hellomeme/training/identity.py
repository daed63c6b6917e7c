"""Who the drawn people are: everything about a person that pose and expression leave as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Colour = tuple[float, float, float]  # RGB in [0, 255]

SKINS: dict[str, Colour] = {
    "pale": (253, 224, 203),
    "fair": (246, 203, 172),
    "tan": (226, 172, 131),
    "olive": (201, 147, 104),
    "brown": (158, 105, 72),
    "dark": (108, 70, 50),
}
HAIRS: dict[str, Colour] = {
    "black": (42, 38, 48),
    "brown": (99, 62, 42),
    "blonde": (238, 198, 110),
    "red": (196, 76, 40),
    "grey": (160, 162, 170),
    "white": (233, 231, 228),
    "pink": (238, 128, 164),
    "blue": (66, 108, 196),
}
EYES: dict[str, Colour] = {
    "brown": (98, 60, 36),
    "blue": (62, 128, 202),
    "green": (72, 142, 84),
    "grey": (112, 126, 140),
}
BACKGROUNDS: dict[str, Colour] = {
    "blue": (132, 184, 226),
    "green": (150, 204, 158),
    "yellow": (247, 217, 122),
    "pink": (244, 182, 192),
    "purple": (186, 166, 222),
    "orange": (246, 180, 120),
    "grey": (190, 196, 202),
    "teal": (112, 190, 186),
}
CLOTHES: dict[str, Colour] = {
    "red": (204, 62, 62),
    "blue": (56, 92, 170),
    "green": (58, 132, 92),
    "yellow": (236, 190, 62),
    "white": (242, 240, 236),
    "black": (52, 52, 60),
    "purple": (122, 84, 160),
    "orange": (230, 126, 56),
}
GLASSES: dict[str, Colour] = {"black": (40, 36, 40), "red": (176, 44, 52), "gold": (196, 150, 58)}

WOMEN_HAIR = ("long", "bob", "short", "curly", "bun", "ponytail")
MEN_HAIR = ("short", "buzz", "curly", "swept", "long", "bald")
FRINGES = ("parted", "straight", "open")
COLLARS = ("round", "deep", "shirt", "hood")


@dataclass(frozen=True)
class Identity:
    """One person. Names of colours are keys of the tables above; lengths are factors of the average person's."""

    woman: bool
    skin: str
    hair: str
    hair_shape: str  # of WOMEN_HAIR or MEN_HAIR
    fringe: str
    parting: float  # -1 ... 1, towards the person's right ... left
    eyes: str
    background: str
    clothes: str
    collar: str
    glasses: str | None  # colour
    round_glasses: bool
    beard: bool
    earrings: bool
    freckles: bool
    head_width: float
    jaw_width: float
    chin_length: float
    eye_size: float
    eye_distance: float
    eye_tilt: float  # radians, outer corners up
    brow_width: float
    brow_height: float
    brow_tilt: float  # radians, outer ends up
    nose_size: float
    mouth_width: float
    lip_fullness: float
    curl_seed: int  # places the locks of curly hair

    @property
    def caption(self) -> str:
        """What a prompt calls this person."""
        hair = "bald head" if self.hair_shape == "bald" else f"{self.hair_shape} {self.hair} hair"
        if self.hair_shape in ("bun", "ponytail"):
            hair = f"{self.hair} hair in a {self.hair_shape}"
        features = [hair] + ["glasses"] * (self.glasses is not None) + ["a beard"] * self.beard
        who = "woman" if self.woman else "man"
        face = f"{', '.join(features[:-1])} and {features[-1]}" if features[1:] else features[0]
        return f"a {who} with {face}, {self.skin} skin, {self.clothes} clothes, {self.background} background"


def random_identity(generator: np.random.Generator) -> Identity:
    """A person drawn from the generator; every call takes the same number of draws' worth of state."""
    woman = bool(generator.random() < 0.5)
    shapes = WOMEN_HAIR if woman else MEN_HAIR
    low, high = (0.86, 1.0) if woman else (0.96, 1.14)
    return Identity(
        woman=woman,
        skin=_pick(generator, SKINS),
        hair=_pick(generator, HAIRS),
        hair_shape=_pick(generator, shapes),
        fringe=_pick(generator, FRINGES),
        parting=float(generator.uniform(-1, 1)),
        eyes=_pick(generator, EYES),
        background=_pick(generator, BACKGROUNDS),
        clothes=_pick(generator, CLOTHES),
        collar=_pick(generator, COLLARS),
        glasses=_maybe(generator, 0.3, _pick(generator, GLASSES)),
        round_glasses=bool(generator.random() < 0.5),
        beard=bool(generator.random() < (0.0 if woman else 0.3)),
        earrings=bool(generator.random() < (0.4 if woman else 0.05)),
        freckles=bool(generator.random() < 0.2),
        head_width=float(generator.uniform(0.94, 1.06)),
        jaw_width=float(generator.uniform(low, high)),
        chin_length=float(generator.uniform(0.92, 1.1)),
        eye_size=float(generator.uniform(0.9, 1.12) * (1.06 if woman else 0.94)),
        eye_distance=float(generator.uniform(0.95, 1.07)),
        eye_tilt=float(generator.uniform(-0.06, 0.14)),
        brow_width=float(generator.uniform(0.7, 1.0) * (0.85 if woman else 1.25)),
        brow_height=float(generator.uniform(0.9, 1.1)),
        brow_tilt=float(generator.uniform(-0.1, 0.16)),
        nose_size=float(generator.uniform(0.8, 1.2)),
        mouth_width=float(generator.uniform(0.88, 1.12)),
        lip_fullness=float(generator.uniform(0.8, 1.2) * (1.15 if woman else 0.8)),
        curl_seed=int(generator.integers(1 << 30)),
    )


def mixed(colour: Colour, other: Colour, share: float) -> Colour:
    """`colour` with this share of `other`."""
    red, green, blue = (a + (b - a) * share for a, b in zip(colour, other, strict=True))
    return red, green, blue


def _pick(generator: np.random.Generator, choices: Any) -> str:
    names = list(choices)
    return names[int(generator.integers(len(names)))]


def _maybe(generator: np.random.Generator, chance: float, value: str) -> str | None:
    return value if generator.random() < chance else None

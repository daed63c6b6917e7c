"""Tracks of a face that moves by itself, so that a portrait can be driven without any video.

Every motion begins and ends at rest, so tracks repeat and join without a jump, and draws its own random numbers, so one
does not change another. Rates and durations are from the papers named below; angles and amounts were chosen by eye.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from lib_hellomeme.errors import FaceError
from lib_hellomeme.face.between import ease
from lib_hellomeme.face.extract import assumed_frame
from lib_hellomeme.face.track import ARKIT_NAMES, FaceFrame, FaceTrack

MAXIMUM_FRAMES = 100_000
ANGLES = ("pitch", "yaw", "roll")  # radians, as in camera.py
FULL_GAZE = np.radians(30.0)  # at which a coefficient of the gaze is 1

Motion = dict[str, np.ndarray]  # of ANGLES and ARKIT_NAMES, what each of the times (n,) adds


def make_track(
    motions: Sequence[str],
    seconds: float,
    fps: Fraction = Fraction(25),
    seed: int = 0,
    size: tuple[int, int] = (512, 512),
) -> FaceTrack:
    """A face in the middle of a picture of this (width, height) that makes these MOTIONS, the same for the same seed.

    The coefficients that move count as measured. A motion for which there is no time is named in a warning. Raises
    FaceError for an unknown motion and for lengths, rates and seeds that make no track.
    """
    unknown = [name for name in motions if name not in MOTIONS]
    if unknown or not motions:
        raise FaceError(f"there is no motion {', '.join(unknown) or 'given'}; choose among {', '.join(MOTIONS)}")
    if not (fps > 0 and np.isfinite(seconds) and 1 <= round(seconds * fps) <= MAXIMUM_FRAMES):
        raise FaceError(f"{seconds:g} seconds at {fps} frames a second make no track of 1 to {MAXIMUM_FRAMES} frames")
    if seed < 0:
        raise FaceError(f"the seed {seed} is negative; give 0 or more")
    times = np.arange(round(seconds * fps)) / float(fps)
    made = {name: MOTIONS[name](times, np.random.default_rng([seed, zlib.crc32(name.encode())])) for name in motions}
    total = {part: np.zeros(len(times)) for part in (*ANGLES, *ARKIT_NAMES)}
    for motion in made.values():
        for part, values in motion.items():
            total[part] = total[part] + values
    angles = np.stack([total[part] for part in ANGLES], axis=1)  # (n, 3)
    coefficients = np.clip(np.stack([total[name] for name in ARKIT_NAMES], axis=1), 0.0, 1.0)  # (n, 51)
    frames = tuple(
        _frame(index / fps, *size, *pair) for index, pair in enumerate(zip(angles, coefficients, strict=True))
    )
    still = [name for name, motion in made.items() if not any(values.any() for values in motion.values())]
    warnings = (f"{seconds:g} seconds are too short for {', '.join(still)}",) * bool(still)
    moved = frozenset(part for motion in made.values() for part in motion if part in ARKIT_NAMES)
    return FaceTrack(fps, frames, moved, "procedural", warnings)


def _frame(time: Fraction, width: int, height: int, rotation: np.ndarray, coefficients: np.ndarray) -> FaceFrame:
    still = assumed_frame(width, height, time)
    return FaceFrame(time, width, height, True, rotation, still.translation, coefficients)


def blink(times: np.ndarray, random: np.random.Generator) -> Motion:
    """17 a minute, as at rest, at log-normal intervals (Bentivoglio et al., Movement Disorders 1997); lids close in
    about 100 ms, and a blink lasts 100 to 400 ms (Stern et al., Psychophysiology 1984; BioNumbers)."""
    lids = np.zeros(len(times))
    for start in _starts(times, random, length=0.4, pause=60 / 17 - 0.4):
        closing, closed, opening = random.uniform((0.07, 0.02, 0.12), (0.12, 0.06, 0.2))
        lids += random.uniform(0.85, 1.0) * _pulse(times, start, closing, closed, opening)
    return _both("eyeBlink", lids)


def nod(times: np.ndarray, random: np.random.Generator) -> Motion:
    """Two or three times down and back, each less deep, about twice a second."""
    pitch = np.zeros(len(times))
    for start in _starts(times, random, length=2.0, pause=1.8):
        period, depth = random.uniform((0.45, 6.0), (0.65, 10.0))
        for cycle in range(random.integers(2, 4)):
            pitch += np.radians(depth) * 0.65**cycle * _pulse(times, start + cycle * period, period / 2, 0, period / 2)
    return {"pitch": pitch}


def shake(times: np.ndarray, random: np.random.Generator) -> Motion:
    """Two or three times from side to side, somewhat slower than a nod."""
    yaw = np.zeros(len(times))
    for start in _starts(times, random, length=2.4, pause=1.8):
        period, width = random.uniform((0.55, 7.0), (0.8, 11.0))
        length = period * random.integers(2, 4)
        envelope = _pulse(times, start, period / 2, length - period, period / 2)
        yaw += random.choice((-1, 1)) * np.radians(width) * envelope * np.sin((times - start) * 2 * np.pi / period)
    return {"yaw": yaw}


def _both(name: str, value: Any) -> dict[str, Any]:
    return {f"{name}Left": value, f"{name}Right": value}


# What the mouth does in a syllable, in full.
VOWELS: tuple[dict[str, float], ...] = (
    {"jawOpen": 0.6, **_both("mouthLowerDown", 0.35), **_both("mouthUpperUp", 0.15)},
    {"jawOpen": 0.3, **_both("mouthStretch", 0.3), **_both("mouthSmile", 0.15)},
    {"jawOpen": 0.38, "mouthFunnel": 0.45, "mouthPucker": 0.2},
    {"jawOpen": 0.2, "mouthFunnel": 0.2, "mouthPucker": 0.5},
)


def talk(times: np.ndarray, random: np.random.Generator) -> Motion:
    """Phrases of about two seconds, of four to five syllables a second: mouths open and close at 2 to 7 Hz
    (Chandrasekaran et al., PLoS Computational Biology 2009), and the head stresses one of some syllables (1 to 2 Hz:
    Pedersen et al., PLoS Computational Biology 2022)."""
    moved = {part: np.zeros(len(times)) for part in ("pitch", *(name for vowel in VOWELS for name in vowel))}
    for start in _starts(times, random, length=2.8, pause=0.2):
        time, end = start, start + random.uniform(1.7, 2.1)
        while time < end:
            length = random.uniform(0.19, 0.27)
            shape = _pulse(times, time, 0.6 * length, 0, 0.8 * length) * random.uniform(0.5, 1.0)
            for name, amount in VOWELS[random.integers(len(VOWELS))].items():
                moved[name] += amount * shape
            if random.random() < 0.3:
                moved["pitch"] += np.radians(2.0) * _pulse(times, time, length, 0, 1.5 * length)
            time += length
    return moved


def look(times: np.ndarray, random: np.random.Generator) -> Motion:
    """Looks about: the eyes leap within 30 to 120 ms and rest for half a second to one; the head follows a part of the
    way and the eyes give that back, as in Guitton and Volle, J. Neurophysiology 1987."""
    gaze, head = np.zeros((2, len(times))), np.zeros((2, len(times)))  # to the picture's right, down; radians
    for start in _starts(times, random, length=3.0, pause=0.8):
        last, time = np.zeros((2, 1)), start
        targets = [random.uniform((-25.0, -10.0), (25.0, 8.0)) for _ in range(random.integers(1, 3))]
        for target in (*targets, np.zeros(2)):
            way = np.radians(target)[:, None] - last
            gaze += way * ease((times - time) / 0.08)
            head += 0.5 * way * ease((times - time - 0.05) / 0.45)
            last, time = last + way, time + random.uniform(0.5, 1.1)
    right, down = (gaze - head) / FULL_GAZE
    return {
        "yaw": head[0],
        "pitch": head[1],
        "eyeLookOutLeft": np.maximum(right, 0.0),
        "eyeLookInRight": np.maximum(right, 0.0),
        "eyeLookInLeft": np.maximum(-right, 0.0),
        "eyeLookOutRight": np.maximum(-right, 0.0),
        **_both("eyeLookUp", np.maximum(-down, 0.0)),
        **_both("eyeLookDown", np.maximum(down, 0.0)),
    }


def smile(times: np.ndarray, random: np.random.Generator) -> Motion:
    """Up in about half a second, slower down, two thirds of a second to four in all, with the cheeks and the eyes
    (Ekman and Friesen, J. Nonverbal Behavior 1982, on felt smiles)."""
    lips = np.zeros(len(times))
    for start in _starts(times, random, length=3.7, pause=2.0):
        rise, hold, fall = random.uniform((0.4, 0.6, 0.6), (0.7, 2.0, 1.0))
        lips += random.uniform(0.5, 0.8) * _pulse(times, start, rise, hold, fall)
    lean = random.uniform(0.9, 1.1)
    return {
        "mouthSmileLeft": lips * lean,
        "mouthSmileRight": lips / lean,
        **_both("cheekSquint", 0.6 * lips),
        **_both("eyeSquint", 0.35 * lips),
    }


def sway(times: np.ndarray, random: np.random.Generator) -> Motion:
    """The head is never quite still: one or two degrees, slowly."""
    end = times[-1]
    envelope = _pulse(times, 0.0, min(0.7, end / 2), max(end - 1.4, 0.0), min(0.7, end / 2)) if end else np.zeros(1)
    angles: Motion = {}
    for part, degrees in zip(ANGLES, (0.9, 1.4, 0.8), strict=True):
        waves = random.uniform((0.1, 0.0), (0.4, 2 * np.pi), (3, 2))  # Hz, phase
        angles[part] = (
            envelope * np.radians(degrees) * np.mean([np.sin(2 * np.pi * f * times + p) for f, p in waves], 0)
        )
    return angles


MOTIONS: dict[str, Callable[[np.ndarray, np.random.Generator], Motion]] = {
    motion.__name__: motion for motion in (blink, nod, shake, talk, look, smile, sway)
}


def _starts(times: np.ndarray, random: np.random.Generator, length: float, pause: float) -> Iterator[float]:
    """When something of at most this length (s) begins, so that it ends in time; the first soon, the others after
    pauses with this mean (s), log-normal."""
    start = min(random.uniform(0.1, 1.5), max(times[-1] - length, 0.0))
    while start + length <= times[-1]:
        yield start
        start += length + pause * random.lognormal(-0.125, 0.5)


def _pulse(times: np.ndarray, start: float, rise: float, hold: float, fall: float) -> np.ndarray:
    """From 0 to 1 and back; durations in s."""
    return ease((times - start) / rise) - ease((times - start - rise - hold) / fall)

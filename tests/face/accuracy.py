"""How well pose and expression are found on rendered faces: `python -m tests.face.accuracy` prints the table.

Persons differ in geometry: the astronaut's own, deeper and flatter, wider and narrower, and those of faces of
`lfw_subset`; all wear the astronaut's texture. Each person is one clip from one distance; poses, sizes, movements are
drawn at random with a fixed seed. The average face that poses are fitted to was made from `lfw_subset`, so its four
persons are not unseen; the constants of the expression measures were fitted to renders like these, with other seeds.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

import cv2
import numpy as np
import skimage.data

from lib_hellomeme.face.expression import MEASURED, from_own_rest
from lib_hellomeme.face.landmarks import MESH_POINTS
from lib_hellomeme.face.mediapipe_solutions import MediaPipeSolutions
from lib_hellomeme.face.mesh import frame_of_mesh
from lib_hellomeme.face.track import ARKIT_INDEX
from tests.face.render import Head, align_to_mean_face, make_head, movements, render, with_gaze

DISTANCES = (3.5, 6.0, 12.0)  # face widths: half a metre (a selfie) to 1.7 m
OPPOSITES = (("browInnerUp", "browDown"), ("browOuterUp", "browDown"), ("mouthSmile", "mouthFrown"))
GAZE = ("eyeLookIn", "eyeLookOut", "eyeLookUp", "eyeLookDown")


class Sample(NamedTuple):
    person: int
    true_angles: np.ndarray  # (3,) degrees
    found_angles: np.ndarray
    true_coefficients: np.ndarray  # (51,)
    found_coefficients: np.ndarray


def persons(count: int) -> list[Head]:
    photo = cv2.resize(skimage.data.astronaut(), None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    extractor = MediaPipeSolutions()
    mesh = extractor.meshes(photo)[0]
    own = mesh[:MESH_POINTS] * [1.0, -1.0, -1.0]
    shapes = [own, own * [1, 1, 0.85], own * [1, 1, 1.15], own * [1.08, 1, 1], own * [0.93, 1, 1]]
    for face in skimage.data.lfw_subset()[[3, 17, 42, 64]]:
        large = cv2.resize((face * 255).astype(np.uint8), (200, 200), interpolation=cv2.INTER_CUBIC)
        picture = cv2.cvtColor(np.pad(large, 100, constant_values=128), cv2.COLOR_GRAY2RGB)
        shapes.append(extractor.meshes(picture)[0][:MESH_POINTS] * [1.0, -1.0, -1.0])
    order = [0, 5, 1, 6, 2, 7, 3, 8, 4]
    return [make_head(photo, mesh, align_to_mean_face(shapes[index])[0]) for index in order[:count]]


def measure_poses(heads: list[Head], step: int) -> list[Sample]:
    """Sweeps of yaw and of pitch from -40 to 40 degrees, the other at -15, 0 and 15, rolls of -25 to 25."""
    rng, extractor, samples = np.random.default_rng(0), MediaPipeSolutions(), []
    sweep = range(-40, 41, step)
    poses = [(p, y) for y in sweep for p in (-15, 0, 15)] + [(p, y) for p in sweep for y in (-15, 0, 15)]
    for person, head in enumerate(heads):
        for pitch, yaw in poses:
            angles = np.array([pitch, yaw, rng.choice([-25, -10, 0, 10, 25])], np.float64)
            samples.append(_measure(extractor, person, head, angles, {}, rng.uniform(110, 220)))
    return samples


def measure_expressions(heads: list[Head], count: int, seed: int = 2, gaze: bool = False) -> list[Sample]:
    """Up to five random movements at once, none with its opposite, at yaw to 25, pitch and roll to 15 degrees."""
    rng, extractor, samples = np.random.default_rng(seed), MediaPipeSolutions(), []
    for person, head in enumerate(heads):
        for index in range(count):
            amounts = {} if index % 10 == 0 else _draw_movements(rng, head)
            if gaze:
                amounts = {name: value for name, value in amounts.items() if not name.startswith("eyeBlink")}
                amounts |= _draw_gaze(rng)
            angles = rng.uniform([-15, -25, -15], [15, 25, 15])
            samples.append(_measure(extractor, person, head, angles, amounts, rng.uniform(130, 220)))
    return samples


def _draw_movements(rng: np.random.Generator, head: Head) -> dict[str, float]:
    names = rng.permutation(list(movements(head.points[:MESH_POINTS])))[: rng.integers(1, 6)].tolist()
    for one, other in OPPOSITES:
        if any(name.startswith(one) for name in names):
            names = [name for name in names if not name.startswith(other)]
    return {name: rng.uniform(0, 1) for name in names}


def _draw_gaze(rng: np.random.Generator) -> dict[str, float]:
    """Both eyes look the same way."""
    x, y = rng.uniform(-1, 1), rng.uniform(-0.8, 0.8)
    vertical = {"eyeLookUpLeft": y, "eyeLookUpRight": y, "eyeLookDownLeft": -y, "eyeLookDownRight": -y}
    sideways = {"eyeLookOutLeft": x, "eyeLookInRight": x, "eyeLookInLeft": -x, "eyeLookOutRight": -x}
    return {name: max(value, 0.0) for name, value in (vertical | sideways).items()}


def _measure(
    extractor: MediaPipeSolutions, person: int, head: Head, angles: np.ndarray, amounts: dict[str, float], width: float
) -> Sample:
    seen = with_gaze(head, amounts) if any(name.startswith("eyeLook") for name in amounts) else head
    picture = render(seen, np.radians(angles), amounts, face_width=width, distance=DISTANCES[person % 3])
    frame = frame_of_mesh(extractor.meshes(picture)[0], picture.shape[1], picture.shape[0])
    truth = np.zeros(len(ARKIT_INDEX))
    for name, amount in amounts.items():
        truth[ARKIT_INDEX[name]] = amount
    return Sample(person, angles, np.degrees(frame.rotation), truth, frame.coefficients)


def pose_errors(samples: list[Sample]) -> np.ndarray:
    """(samples, 3) degrees: |found - true| of pitch, yaw and roll."""
    return np.abs(np.array([sample.found_angles - sample.true_angles for sample in samples]))


def correlations(samples: list[Sample], name: str) -> tuple[float, float]:
    """Within a person's clip (the mean over persons), and over all persons at once."""
    true = np.array([sample.true_coefficients[ARKIT_INDEX[name]] for sample in samples])
    found = np.array([sample.found_coefficients[ARKIT_INDEX[name]] for sample in samples])
    person = np.array([sample.person for sample in samples])
    clips = [np.corrcoef(true[person == one], found[person == one])[0, 1] for one in sorted(set(person))]
    return float(np.mean(clips)), float(np.corrcoef(true, found)[0, 1])


def as_videos(samples: list[Sample]) -> list[Sample]:
    """With each person's coefficients taken from their own rest, as `track_video` does."""
    settled = []
    for person in sorted({sample.person for sample in samples}):
        own = [sample for sample in samples if sample.person == person]
        changed = from_own_rest(np.stack([sample.found_coefficients for sample in own]))
        settled += [one._replace(found_coefficients=values) for one, values in zip(own, changed, strict=True)]
    return settled


def main() -> None:
    heads = persons(9)
    errors = pose_errors(measure_poses(heads, 10))
    print(f"pose, {len(errors)} renders      pitch   yaw  roll (degrees)")
    for label, row in (
        ("mean", errors.mean(axis=0)),
        ("95 %", np.percentile(errors, 95, axis=0)),
        ("max", errors.max(axis=0)),
    ):
        print(f"{label:24s} {row[0]:6.2f}{row[1]:6.2f}{row[2]:6.2f}")
    faces, eyes = measure_expressions(heads, 60), measure_expressions(heads, 30, gaze=True)
    print(f"correlation, {len(faces)} + {len(eyes)} renders   in a clip  over all persons  and as videos: clip, all")
    for name in sorted(MEASURED):
        samples = eyes if name.startswith(GAZE) else faces
        figures = (*correlations(samples, name), *correlations(as_videos(samples), name))
        print(f"{name:32s}" + "".join(f"{figure:9.3f}" for figure in figures))


if __name__ == "__main__":
    sys.exit(main())

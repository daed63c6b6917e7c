"""The whole chain on a real photo without a download: with the drawn world's weights where the repository has them.

Without them the weights are random: it draws noise, but all of it runs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from lib_hellomeme.errors import DependencyError
from lib_hellomeme.face.condition import condition_image
from lib_hellomeme.face.edit import retarget
from lib_hellomeme.face.fit import fit_picture
from lib_hellomeme.face.preview import draw_preview
from lib_hellomeme.settings import Settings
from lib_hellomeme.standalone.drawing import Drawing
from lib_hellomeme.standalone.drawn_demo import run_drawn_demo
from lib_hellomeme.standalone.host import Drawn, EmbeddedHost
from lib_hellomeme.standalone.pictures import save_picture
from lib_hellomeme.standalone.random_weights import write_checkpoint, write_networks
from lib_hellomeme.standalone.sheet import contact_sheet
from lib_hellomeme.standalone.world import WORLD, has_world

SIDE = 256  # px
NOTICE = "The weights are random, so the drawn pictures are noise: only the chain from photo to picture is real."


def run_demo(folder: str | os.PathLike[str]) -> None:
    """Leave pictures in `folder`, and with trained weights a video; the last line names what to look at."""
    whole = _astronaut()
    mirrored = np.ascontiguousarray(_head(whole, -15.0)[:, ::-1])
    drivers = {"tilted, mouth open": _head(_jaw_dropped(whole), -20.0), "mirrored": mirrored}
    if has_world(WORLD):
        run_drawn_demo(Path(folder), WORLD, {"a photo": _head(whole), **drivers})
    else:
        run_random_demo(Path(folder), _head(whole), drivers)


def run_random_demo(folder: Path, photo: np.ndarray, drivers: Mapping[str, np.ndarray]) -> None:
    """Leave the inputs, what the extractor saw, the condition images, the results and a labelled sheet in `folder`."""
    print("1/3 Writing a narrow checkpoint and narrow HelloMeme networks with random weights, in the published formats")
    models = folder / "random_weights"
    checkpoint = write_checkpoint(models / "narrow_sd15.safetensors")
    write_networks(models / "hellomeme")

    print("2/3 Loading the files and drawing people like a photo (NASA's of Eileen Collins, by scikit-image)")
    host = EmbeddedHost(checkpoint, models / "hellomeme")
    drawing = Drawing("a portrait photo of an astronaut", "blurry", steps=10, cfg=3.0, seed=1, width=SIDE, height=SIDE)
    drawn = {label: host.reenact(photo, driver, Settings(enabled=True), drawing) for label, driver in drivers.items()}
    own = next(iter(drawn.values())).portrait.reference.face
    first = {"reference": photo, "reference seen": draw_preview(photo, own), "without HelloMeme": host.draw(drawing)}
    rows = [first, *(_explained(label, drivers[label], drawn[label]) for label in drivers)]

    print("3/3 Writing the pictures")
    for name, picture in (cell for row in rows for cell in row.items()):
        save_picture(picture, folder / f"{name.replace(',', '').replace(' ', '_')}.png")
    sheet = folder / "sheet.png"
    save_picture(contact_sheet([list(row.items()) for row in rows], SIDE, NOTICE), sheet)
    print(f"\n{NOTICE}\nLook at {sheet}; the single pictures lie beside it.")


def _explained(label: str, driver: np.ndarray, drawn: Drawn) -> dict[str, np.ndarray]:
    """The driving picture, what the extractor saw in it, what the control network is shown, and what was drawn."""
    face = drawn.portrait.driving.face
    _, own, _ = fit_picture(drawn.portrait.reference.picture, drawn.portrait.reference.face, SIDE, SIDE, "face")
    target = retarget(face, own, Settings())
    return {
        f"driving {label}": driver,
        f"seen {label}": draw_preview(driver, face),
        f"condition {label}": condition_image(target.rotation, target.translation, SIDE, SIDE),
        f"result {label}": drawn.picture,
    }


def _astronaut() -> np.ndarray:
    try:
        from skimage import data
    except ImportError as error:
        raise DependencyError("the demo's photo comes with scikit-image: pip install scikit-image") from error
    return data.astronaut()


def _head(photo: np.ndarray, degrees: float = 0.0) -> np.ndarray:
    """Head and shoulders of the astronaut, turned to the left."""
    turn = cv2.getRotationMatrix2D((225.0, 155.0), degrees, 1.0)
    turned = cv2.warpAffine(photo, turn, photo.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(turned[20:290, 90:360])


def _jaw_dropped(photo: np.ndarray) -> np.ndarray:
    """The astronaut with the mouth pulled open."""
    x_middle, upper, lower, drop = 225.0, 142.0, 150.0, 14.0  # px: middle of the mouth, inner edges of the lips
    height, width = photo.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    # Source rows of a column through the mouth's middle: the gap between the lips grows, the neck takes it back.
    rows = np.interp(y, [0, upper, lower + drop, lower + 6 * drop, height], [0, upper, lower, lower + 6 * drop, height])
    share = np.exp(-(((x - x_middle) / 40.0) ** 2))
    source = y + (rows - y) * share
    return cv2.remap(photo, x, source.astype(np.float32), cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)

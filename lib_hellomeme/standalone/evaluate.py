"""`python -m lib_hellomeme evaluate`: the drawn world's report, as a table, as JSON, and as a sheet of pictures."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lib_hellomeme.errors import SettingsError
from lib_hellomeme.standalone.evaluation import (
    FULL,
    NO_CONTROL,
    NO_REFERENCE,
    SLIDERS,
    TEXT,
    TRUTH,
    UNITS,
    VARIANTS,
    Artist,
    Case,
    score,
    sweep,
    unseen_case,
)
from lib_hellomeme.standalone.host import EmbeddedHost
from lib_hellomeme.standalone.pictures import check_picture_path, save_picture
from lib_hellomeme.standalone.sheet import contact_sheet
from lib_hellomeme.standalone.world import NEEDED, NEEDED_FOR_UNITS, WORLD, need_world
from lib_hellomeme.training.base import CHECKPOINT
from lib_hellomeme.training.measure import EXPRESSIONS, load_measuring_network, own_error
from lib_hellomeme.training.measuring import FILE

SHOWN = 8  # cases on the sheet
POSE_LIMIT, SHARE_LIMIT, CORRELATION_LIMIT = 6.0, 1 / 3, 0.8  # degrees; of the error without; Pearson's

Report = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--world", type=Path, default=WORLD, metavar="DIR", help="the drawn world's weights (%(default)s)")
    add("--count", type=int, default=64, metavar="N", help="unseen people (%(default)s)")
    add("--sweep", type=int, default=8, metavar="N", help="of them, at every value of every slider (%(default)s)")
    add("--references", action="store_true", help="reference units alone: nothing that needs HelloMeme's networks")
    add("--seed", type=int, default=1000, metavar="S", help="which people (%(default)s)")
    add("--json", action="store_true", help="write the report to standard output for machines")
    add("--sheet", metavar="PICTURE", help="also draw the first cases on one sheet")
    add("--size", type=int, default=128, metavar="PX", help="side of the pictures (%(default)s)")
    add("--steps", type=int, default=20, metavar="N", help="of the sampler (%(default)s)")
    add("--cfg", type=float, default=3.0, metavar="SCALE", help="guidance (%(default)s)")
    add("--device", help="cuda, mps or cpu (the best there is)")


def run(arguments: argparse.Namespace) -> None:
    """Raises SettingsError, and MissingFileError where the world's weights are not there."""
    if not 0 <= arguments.sweep <= arguments.count or arguments.count < 2 or arguments.seed < 0:
        raise SettingsError("--count must be at least 2, --sweep from 0 to --count, and --seed at least 0")
    if arguments.sheet:
        check_picture_path(arguments.sheet)
    report, rows = evaluate(
        arguments.world,
        count=arguments.count,
        swept=arguments.sweep,
        seed=arguments.seed,
        size=arguments.size,
        steps=arguments.steps,
        cfg=arguments.cfg,
        device=arguments.device,
        references=arguments.references,
    )
    if arguments.sheet:
        save_picture(contact_sheet(rows, side=arguments.size), arguments.sheet)
    print(json.dumps(report, indent=1, allow_nan=False) if arguments.json else as_text(report))


def evaluate(
    world: Path,
    count: int,
    swept: int,
    seed: int,
    size: int = 128,
    steps: int = 20,
    cfg: float = 3.0,
    device: str | None = None,
    references: bool = False,
) -> tuple[Report, list[list[tuple[str, np.ndarray]]]]:
    """The report, and rows of labelled pictures. Both follow from the arguments and the weights alone.

    With `references` the world may lack HelloMeme's networks: plain text-to-image and the sliders of reference units.
    """
    folder = need_world(world, NEEDED_FOR_UNITS if references else NEEDED)
    names = (TRUTH, TEXT) if references else VARIANTS
    swept_sliders = {name: slider for name, slider in SLIDERS.items() if name in UNITS or not references}
    network = load_measuring_network(folder / FILE)
    host = EmbeddedHost(folder / CHECKPOINT, folder, device=device)
    cases = [unseen_case(seed, index, size) for index in range(count)]
    drawn = (len(names) - 1) * count + sum(len(slider.values) for slider in swept_sliders.values()) * swept
    with tqdm(total=drawn, desc="Evaluating", unit="picture", file=sys.stderr, mininterval=1.0) as bar:
        artist = Artist(host, size, steps, cfg, bar.update)
        pictures = {name: [artist.variant(name, case) for case in cases] for name in names}
        sliders = {
            name: sweep(slider, artist, network, cases[:swept]) for name, slider in swept_sliders.items() if swept
        }
    variants = {name: score(network, cases, row) for name, row in pictures.items()}
    report = {
        "seed": seed,
        "count": count,
        "swept": swept,
        "size": size,
        "steps": steps,
        "cfg": cfg,
        "measuring": {name: round(value, 4) for name, value in own_error(network, seed, size=size).items()},
        "variants": variants,
        "sliders": sliders,
        "bounds": bounds(variants, sliders),
    }
    return report, [shown(case, pictures, index) for index, case in enumerate(cases[:SHOWN])]


def bounds(
    variants: Mapping[str, Mapping[str, float]], sliders: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, dict[str, Any]]:
    """What the project promises, by sentence: the number, its limit, and whether it is kept."""
    kept: dict[str, dict[str, Any]] = {}
    for name, effects in sliders.items():
        for effect in effects:
            kept[f"{name}: {effect['moves']}, monotone"] = {
                "number": float(effect["monotone"]),
                "limit": 1.0,
                "kept": effect["monotone"],
            }
    if FULL not in variants:
        return kept
    full = variants[FULL]
    most: dict[str, tuple[float, float]] = {
        "pose error, degrees": (full["pose"], POSE_LIMIT),
        "pose error, of that with control off": (ratio(full["pose"], variants[NO_CONTROL]["pose"]), SHARE_LIMIT),
        "identity error, of that with the reference off": (
            ratio(full["identity"], variants[NO_REFERENCE]["identity"]),
            SHARE_LIMIT,
        ),
    }
    kept |= {
        name: {"number": round(value, 4), "limit": round(limit, 4), "kept": value <= limit}
        for name, (value, limit) in most.items()
    }
    for name in EXPRESSIONS:
        kept[f"correlation, {name}"] = {
            "number": full[name],
            "limit": CORRELATION_LIMIT,
            "kept": full[name] >= CORRELATION_LIMIT,
        }
    return kept


def ratio(value: float, whole: float) -> float:
    return value / max(whole, 1e-6)


def shown(case: Case, pictures: Mapping[str, Sequence[np.ndarray]], index: int) -> list[tuple[str, np.ndarray]]:
    """A row of the sheet."""
    given = [("reference", case.portrait.reference.picture), ("driver", case.portrait.driving.picture)]
    order = (FULL, TRUTH, NO_REFERENCE, NO_CONTROL, TEXT)
    return given + [(name, pictures[name][index]) for name in order if name in pictures]


def as_text(report: Report) -> str:
    """The report for people."""
    title = "{count} unseen people, seed {seed}: {size} px, {steps} steps, guidance {cfg:g}".format(**report)
    columns = ["pose, degrees", *EXPRESSIONS, "identity"]
    rows = [["", *columns]]
    rows += [[name, *(f"{value:.3f}" for value in scores.values())] for name, scores in report["variants"].items()]
    own = report["measuring"]
    lines = [
        title,
        "",
        *_table(rows),
        "",
        "Pose and identity are errors, the others correlations with the driver's expression. "
        "The measuring network's own error, on other renderings:",
        ", ".join(f"{name} {value:.3f}" for name, value in own.items()),
    ]
    for name, effects in report["sliders"].items():
        for effect in effects:
            verdict = "monotone" if effect["monotone"] else "not monotone"
            lines += ["", f"{name} ({report['swept']} people): {effect['moves']}, {verdict}"]
            lines += _table([[f"{value:g}" for value in row] for row in (effect["values"], effect["numbers"])])
    lines += ["", *_table([["", "number", "limit", ""], *map(_bound, *zip(*report["bounds"].items(), strict=True))])]
    return "\n".join(lines)


def _bound(name: str, bound: Mapping[str, Any]) -> list[str]:
    return [name, f"{bound['number']:.3f}", f"{bound['limit']:.3f}", "kept" if bound["kept"] else "NOT KEPT"]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]

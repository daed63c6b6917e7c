"""Published weight files into the folder of the models: `python -m lib_hellomeme download v5c`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from lib_hellomeme.checkpoints.catalog import FILES, GENERATIONS, WeightFile, files_of, find
from lib_hellomeme.checkpoints.download import HUB, Progress, download
from lib_hellomeme.networks.expression import ExpressionKind
from lib_hellomeme.settings import Settings
from lib_hellomeme.standalone.host import DEFAULT_MODELS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = [*GENERATIONS, *FILES]
    what = f"generations ({', '.join(GENERATIONS)}) or single files ({', '.join(FILES)})"
    kinds = get_args(ExpressionKind)
    parser.add_argument("what", nargs="+", choices=names, metavar="WHAT", help=what)
    parser.add_argument("--models", metavar="DIR", default=DEFAULT_MODELS, help="where they go (%(default)s)")
    default = Settings().expression
    parser.add_argument("--expression", choices=kinds, default=default, help="how it is given (%(default)s)")
    parser.add_argument("--video", action="store_true", help="with the generation's motion networks")
    parser.add_argument("--mirror", metavar="URL", help=f"in the place of {HUB} (environment variable HF_ENDPOINT)")
    parser.add_argument("--again", action="store_true", help="ask the hub for newer ones of files that are there too")


def run(arguments: argparse.Namespace) -> None:
    """Raises CheckpointError in one line, DownloadError among them; what came before it stays."""
    folder = Path(arguments.models)
    found = {} if arguments.again else find(folder)
    for file in wanted(arguments.what, arguments.expression, arguments.video):
        there = found.get(file.key)
        if there and there.certain:
            print(f"{file.key} is there: {there.path}")
        else:
            print(_download_with_bar(file, folder, arguments.mirror))


def wanted(names: list[str], expression: ExpressionKind, video: bool) -> list[WeightFile]:
    """The files behind keys of GENERATIONS and FILES, each once."""
    files = [file for name in names for file in ([FILES[name]] if name in FILES else files_of(name, expression, video))]
    return list(dict.fromkeys(files))


def _download_with_bar(file: WeightFile, folder: Path, mirror: str | None) -> Path:
    from tqdm import tqdm

    with tqdm(desc=file.local_name, unit="B", unit_scale=True, unit_divisor=1024) as bar:

        def show(progress: Progress) -> None:
            if bar.total is None:  # what an earlier run left does not count for the speed
                bar.initial = bar.n = progress.done
            bar.total = progress.total or bar.total
            bar.set_postfix_str(progress.note, refresh=bool(progress.note))
            bar.update(progress.done - bar.n)

        return download(file, folder, show, mirror)

"""The panel's weight files: what is missing for the chosen networks, and a button that fetches it.

A download runs in a thread of its own, one at a time in a webui: generating goes on beside it, and closing the page
does not end it. Pressing the button while it runs shows it again.
"""

from __future__ import annotations

import html
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lib_hellomeme.checkpoints.catalog import FILES, WeightFile, files_of, find
from lib_hellomeme.checkpoints.download import HUB, Progress, download
from lib_hellomeme.errors import HelloMemeError
from lib_hellomeme.networks.expression import ExpressionKind
from lib_hellomeme.recipes.reenact import OPTIONAL_ENCODER
from lib_hellomeme.webui.weights import folder

INTERVAL = 0.5  # s between two looks at a running download


class _StoppedError(Exception):
    """The user pressed Stop."""


class Download(threading.Thread):
    """Weight files into a folder, one after the other. `said` is how it stands, in one line; `share` is the fraction
    of the present file that is there, None where that is not known."""

    def __init__(self, files: Sequence[WeightFile], folder: Path, mirror: str | None = None) -> None:
        super().__init__(name="HelloMeme download", daemon=True)
        self.files, self.folder, self.mirror = files, folder, mirror
        self.said, self.share = "The download begins.", None
        self._place = ""
        self._stopped = threading.Event()

    def stop(self) -> None:
        """It ends at the next piece; what has come stays, and the next download goes on there."""
        self._stopped.set()

    def run(self) -> None:
        try:
            for number, file in enumerate(self.files, start=1):
                self._place = f"File {number} of {len(self.files)}, " if len(self.files) > 1 else ""
                download(file, self.folder, self._hear, self.mirror, sleep=self._sleep)
            self.said = "Downloaded: the next picture uses it."
        except _StoppedError:
            self.said = "Stopped; the next download goes on where this one was."
        except HelloMemeError as error:
            self.said = str(error)
        except Exception as error:
            traceback.print_exc()
            self.said = f"The download failed as it should not ({type(error).__name__}); the console says how."
        self.share = None

    def _hear(self, progress: Progress) -> None:
        if self._stopped.is_set():
            raise _StoppedError
        done, total, left = progress.done, progress.total, progress.seconds_left
        self.share = done / total if total else None
        size = f"{done / 1e6:.0f} of {total / 1e6:.0f} MB" if total else f"{done / 1e6:.0f} MB"
        time = "" if left is None else f", {left / 60:.0f} min left"
        note = f"; {progress.note}" if progress.note else ""
        self.said = f"{self._place}{progress.file}: {size}{time}{note}"

    def _sleep(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise _StoppedError


_present: Download | None = None  # the webui's last one
_lock = threading.Lock()


def start(files: Sequence[WeightFile], mirror: str | None = None) -> Download:
    """A download of these files, or the one that runs already."""
    global _present
    with _lock:
        if _present is None or not _present.is_alive():
            _present = Download(files, folder(), mirror)
            _present.start()
        return _present


def missing(generation: str, expression: ExpressionKind, optional: bool = False) -> list[WeightFile]:
    """What these networks need and is not there; `optional`: with the encoder that they can do without."""
    found = find(folder())
    files = [*files_of(generation, expression), *([FILES[OPTIONAL_ENCODER]] if optional else [])]
    return [file for file in files if file.key not in found]


def listed(generation: str, expression: ExpressionKind, optional: bool = False) -> str:
    """The missing files as the panel shows them."""
    lines = [
        f"{file.local_name}: {file.megabytes} MB, {file.purpose}. Licence: {file.licence}."
        for file in missing(generation, expression, optional)
    ]
    return _lines(lines or ["Nothing is missing."])


def press(generation: str, expression: ExpressionKind, optional: bool, mirror: str) -> Iterator[str]:
    """Start the download, or find the running one, and tell how it stands until it has ended."""
    files = missing(generation, expression, optional)
    if not files and (_present is None or not _present.is_alive()):
        yield listed(generation, expression, optional)
        return
    running = start(files, mirror.strip() or None)
    while running.is_alive():
        yield _shown(running)
        running.join(INTERVAL)
    yield _lines([running.said])


def stop() -> str:
    """What the panel shows at once: the thread ends a moment later."""
    if _present is None or not _present.is_alive():
        return _lines(["No download is running."])
    _present.stop()
    return _lines(["Stopping."])


def build(tab: str, widgets: Mapping[str, Any]) -> None:
    """The group of one tab's panel. `widgets` are those of the options, by name."""
    import gradio as gr
    from modules import shared

    megabytes = FILES[OPTIONAL_ENCODER].megabytes
    with gr.Accordion("Weight files", open=False):
        status = gr.HTML(listed(widgets["generation"].value, widgets["expression"].value))
        optional = gr.Checkbox(
            label=f"With {OPTIONAL_ENCODER}, which is optional ({megabytes} MB)",
            value=False,
            elem_id=f"{tab}_hellomeme_optional",
        )
        mirror = gr.Textbox(
            label="Mirror",
            placeholder=HUB,
            info="An address in the place of the hub's.",
            elem_id=f"{tab}_hellomeme_mirror",
        )
        with gr.Row():
            fetch = gr.Button("Download what is missing", elem_id=f"{tab}_hellomeme_download")
            end = gr.Button("Stop", elem_id=f"{tab}_hellomeme_stop")
    chosen = [widgets["generation"], widgets["expression"], optional]
    for widget in chosen:
        widget.change(listed, inputs=chosen, outputs=[status], show_progress="hidden")
    # Without gradio's queue there is one answer to a press.
    queued = not getattr(shared.cmd_opts, "no_gradio_queue", False)
    pressed = press if queued else lambda *values: next(press(*values))
    fetch.click(pressed, inputs=[*chosen, mirror], outputs=[status], show_progress="hidden")
    end.click(stop, inputs=[], outputs=[status], show_progress="hidden")


def _shown(download: Download) -> str:
    bar = "<progress style='width: 100%'></progress>"
    if download.share is not None:
        bar = f"<progress style='width: 100%' value='{download.share:.3f}'></progress>"
    return _lines([download.said]) + bar


def _lines(texts: Sequence[str]) -> str:
    return "".join(f"<p>{html.escape(text)}</p>" for text in texts)

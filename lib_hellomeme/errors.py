"""Every error that a user can meet.

HelloMemeError
├── SettingsError          an option has no such name or value
├── PictureError           a picture or video cannot be read
├── FaceError              no face where one is needed, or a face file is broken
├── CheckpointError        a weight file is missing, damaged or of another kind
│   ├── MissingFileError   a weight file is not there
│   └── DownloadError      a weight file cannot be downloaded
├── HostError              this webui, model or mode cannot be served
└── DependencyError        a package is not installed

Each message is one line that says what is wrong and what to do. Whoever talks to the user (panel, API, command line)
catches `HelloMemeError` and shows that line alone; anything else is a defect and keeps its traceback.
"""

from __future__ import annotations


class HelloMemeError(Exception):
    """The root of the tree above."""


class SettingsError(HelloMemeError, ValueError):
    """An option has no such name or value."""


class PictureError(HelloMemeError):
    """A picture or video cannot be read."""


class FaceError(HelloMemeError):
    """There is no face where one is needed, or a face file is broken."""


class CheckpointError(HelloMemeError):
    """A weight file is missing, damaged or of another kind."""


class MissingFileError(CheckpointError):
    """A weight file is not there."""


class DownloadError(CheckpointError):
    """A weight file cannot be downloaded."""


class HostError(HelloMemeError):
    """This webui, model or mode cannot be served."""


class DependencyError(HelloMemeError):
    """A package is not installed."""

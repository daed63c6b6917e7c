"""Command-line options, read by the webui before it starts."""


def preload(parser):
    parser.add_argument(
        "--hellomeme-models",
        type=str,
        default=None,
        help="folder of the HelloMeme weight files (default: models/hellomeme)",
    )

from pathlib import Path

import pytest
import torch

# The networks of the tests are tiny: a second thread would only wait, for long where other programs use the cores too.
torch.set_num_threads(1)

# Half a minute or more each. The last file of a run keeps one process busy while the others have nothing to do.
LONGEST = ("test_world.py", "test_stages.py", "test_shipped.py", "test_accuracy.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; the others stay in order."""
    names = [Path(item.path).name for item in items]
    ranks = [LONGEST.index(name) if name in LONGEST else len(LONGEST) for name in names]
    items[:] = [items[index] for index in sorted(range(len(items)), key=ranks.__getitem__)]

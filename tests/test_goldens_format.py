"""No golden case may go unnoticed."""

import pytest

from tests.goldens_format import KINDS, NOT_COVERED, all_cases, is_covered


def test_every_kind_is_known():
    assert {case.kind for case in all_cases()} <= KINDS


@pytest.mark.parametrize("pattern", NOT_COVERED)
def test_uncovered_patterns_are_not_stale(pattern):
    from fnmatch import fnmatch

    assert any(fnmatch(case.name, pattern) for case in all_cases())


def test_uncovered_cases_are_printed(capsys):
    uncovered = [case.name for case in all_cases() if not is_covered(case)]
    with capsys.disabled():
        print("\nnot covered:", ", ".join(uncovered) or "nothing")

"""No golden case may go unnoticed."""

from fnmatch import fnmatch

from tests.goldens_format import KINDS, NOT_COVERED, all_cases, is_covered


def test_every_kind_is_known():
    assert {case.kind for case in all_cases()} <= KINDS


def test_uncovered_patterns_are_not_stale():
    names = [case.name for case in all_cases()]
    assert [pattern for pattern in NOT_COVERED if not any(fnmatch(name, pattern) for name in names)] == []


def test_uncovered_cases_are_printed(capsys):
    uncovered = [case.name for case in all_cases() if not is_covered(case)]
    with capsys.disabled():
        print("\nnot covered:", ", ".join(uncovered) or "nothing")

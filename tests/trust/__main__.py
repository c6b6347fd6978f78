"""Everything that may go wrong, in full; where changes are checked, the tests try a part of it.

    python -m tests.trust                          # all of it: 22 minutes on two cores
    python -m tests.trust --faults 0 --kills 0     # bad input alone

It runs every row of the table of bad input, gives broken files to everything that reads files, injects faults into
runs and kills runs at random, then says in a table what was tried and what failed. The exit code is 1 if anything did.
"""

import argparse
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.trust import fuzz

TESTS = Path(__file__).parents[1]


class Tally:
    """Counts what was tried and what failed, a test a try."""

    def __init__(self) -> None:
        self.tried: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test that was run; one that failed before or after it was, too."""
        name = Path(report.location[0]).name
        self.tried[name] += report.when == "call" and not report.skipped
        self.failed[name] += report.failed


def main() -> int:
    """Run the command line above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000, help="broken files")
    parser.add_argument("--faults", type=int, default=200, help="faults injected into runs")
    parser.add_argument("--kills", type=int, default=20, help="kills of a run by SIGTERM and SIGKILL")
    parser.add_argument("--seed", type=int, default=0, help="of the broken files")
    told = parser.parse_args()
    numbers = {"IVDJAX_ALL_ROWS": 1, "IVDJAX_FAULTS": told.faults, "IVDJAX_KILLS": told.kills}
    os.environ.update({name: str(number) for name, number in numbers.items()})
    files = [path for path in sorted((TESTS / "trust").glob("test_*.py")) if told.faults or path.stem != "test_faults"]
    tally = Tally()
    code = pytest.main([*map(str, files), *([str(TESTS / "training/test_resume.py")] * bool(told.kills))], [tally])
    fuzzed, wrong = fuzz.report(told.seed, range(told.inputs))
    print(f"\n{'tests':24} {'tried':>6} {'failed':>6}")
    for name, tried in sorted(tally.tried.items()):
        print(f"{name:24} {tried:6} {tally.failed[name]:6}")
    print(f"\n{fuzzed}")
    return int(code != 0 or wrong > 0)


if __name__ == "__main__":
    sys.exit(main())

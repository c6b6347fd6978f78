"""Try thousands of broken files on everything that reads a user's files, and say in a table what came of them.

    python -m tests.trust.fuzz                         # 20,000 inputs of seed 0
    python -m tests.trust.fuzz --inputs 500 --seed 7
    python -m tests.trust.fuzz --seed 7 --only 123     # one of them again, with all that was said

An input follows from the seed and its number alone. It must be taken, and then what was read is what the header says,
or be refused by one line that names a file. Any other exception, a warning, anything printed, a file changed or left
behind, over 5 s (the child process is then killed) or over 2 GiB of memory is a failure; the exit code is then 1.
"""

import argparse
import json
import selectors
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
HANG_S = 5.0
_START_S = 180.0  # until a child has imported everything


class Child:
    """A process that tries inputs; it is started anew after one that it did not survive."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._home = tempfile.TemporaryDirectory(prefix="ivdjax-fuzz-")

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._home.cleanup()

    def attempt(self, seed: int, number: int, planted: str | None = None, hang_s: float = HANG_S) -> dict[str, Any]:
        """What came of an input: `outcome` (accepted, refused, failed), `why`, `kind`, `target`, `seconds`, `peak`."""
        if self._process is None:
            self._start()
        asked = {"seed": seed, "number": number, "planted": planted}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        line = self._line(hang_s)
        if line:
            return json.loads(line)
        why = f"over {hang_s:g} s" if line is None else f"the process ended with {self._process.wait()}"
        self._end()
        unknown = {"kind": "planted" if planted else "?", "target": planted or "?", "seconds": hang_s, "peak": 0}
        return {"number": number, "outcome": "failed", "why": why, **unknown}

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.trust.fuzz_worker", tempfile.mkdtemp(dir=self._home.name)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if not self._line(_START_S):
            self._end()
            raise AssertionError("the child that tries the inputs did not start")

    def _line(self, within_s: float) -> str | None:
        """The next line of the child: empty where it has ended, None where nothing comes in time."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            return self._process.stdout.readline() if selector.select(within_s) else None

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            self._process.stdout.close()
            self._process = None


def attempts(seed: int, numbers: Iterable[int]) -> Iterator[dict[str, Any]]:
    """Try inputs of a seed, one after another."""
    with Child() as child:
        for number in numbers:
            yield child.attempt(seed, number)


def table(answers: Iterable[dict[str, Any]]) -> str:
    """What came of inputs, a line a kind."""
    by_kind: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for answer in answers:
        by_kind[answer["kind"]].append(answer)
        by_kind["all"].append(answer)
    lines = [f"{'kind':24} {'inputs':>6} {'taken':>6} {'refused':>7} {'failed':>6} {'slowest s':>9} {'peak MiB':>8}"]
    for kind, tried in sorted(by_kind.items(), key=lambda item: (item[0] == "all", item[0])):
        counts = [
            sum(answer["outcome"] == outcome for answer in tried) for outcome in ("accepted", "refused", "failed")
        ]
        slowest, peak = max(answer["seconds"] for answer in tried), max(answer["peak"] for answer in tried)
        lines.append(
            f"{kind:24} {len(tried):6} {counts[0]:6} {counts[1]:7} {counts[2]:6} {slowest:9.2f} {peak / 2**20:8.0f}"
        )
    return "\n".join(lines)


def report(seed: int, numbers: Sequence[int], whole: bool = False) -> tuple[str, int]:
    """Try inputs; print those that fail, or all, and return a table of what came of them and how many failed."""
    answers = []
    for answer in attempts(seed, numbers):
        answers.append(answer)
        if answer["outcome"] == "failed" or whole:
            print(json.dumps(answer, indent=2 if whole else None), flush=True)
            print(f"again: python -m tests.trust.fuzz --seed {seed} --only {answer['number']}", flush=True)
    failed = sum(answer["outcome"] == "failed" for answer in answers)
    return f"seed {seed}, inputs {numbers[0]} to {numbers[-1]}, {failed} failed\n{table(answers)}", failed


def main() -> int:
    """Run the command line above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", type=int)
    told = parser.parse_args()
    numbers = range(told.first, told.first + told.inputs) if told.only is None else [told.only]
    text, failed = report(told.seed, numbers, whole=told.only is not None)
    print(f"\n{text}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())

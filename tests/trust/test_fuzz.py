"""Broken files by the hundred, and that the fuzzer would notice what it looks for.

`python -m tests.trust.fuzz` is the long form.
"""

import numpy as np
import pytest

from tests.trust import fuzz, fuzz_planted, fuzz_volumes

INPUTS = 600
EXPECTED = {"sound": "accepted", "refused": "refused"}


@pytest.fixture(scope="module")
def child():
    with fuzz.Child() as child:
        yield child


def test_what_no_reader_may_do_is_noticed(child):
    names = [name for name in fuzz_planted.PLANTED if name not in ("hang", "killed")]
    found = {name: child.attempt(0, 0, name) for name in names}
    assert {name: told["outcome"] for name, told in found.items()} == {
        name: EXPECTED.get(name, "failed") for name in names
    }
    says = {
        "traceback": "KeyError",
        "memory": "MemoryError",
        "warning": "RuntimeWarning",
        "two lines": "not one line",
        "nameless": "names no file",
        "left behind": ".partial-mask.nii",
        "changed": "reading changed",
        "printed": "debug",
        "logged": "logged",
    }
    assert says.keys() == found.keys() - EXPECTED.keys()
    for name, words in says.items():
        assert words in found[name]["why"], found[name]


def test_a_hang_and_the_end_of_the_process_are_noticed_and_survived(child):
    assert child.attempt(0, 0, "hang", hang_s=1.0)["why"] == "over 1 s"
    killed = child.attempt(0, 1, "killed")
    assert (killed["outcome"], killed["why"]) == ("failed", "the process ended with -11")
    assert child.attempt(0, 2, "sound")["outcome"] == "accepted"


def test_an_input_follows_from_its_seed_and_number(child):
    def same(first, second):
        return all(first[key] == second[key] for key in ("kind", "target", "outcome"))

    assert same(child.attempt(3, 8), child.attempt(3, 8))
    first, second = (fuzz_volumes.volume(np.random.default_rng((3, 8))) for _ in range(2))
    assert first == second


def test_broken_files_are_taken_or_refused_in_one_line(child):
    # What is too slow is for the command to say (tests/trust/fuzz.py): here other work may run beside it.
    answers = [child.attempt(0, number, hang_s=120) for number in range(INPUTS)]
    assert [answer for answer in answers if answer["outcome"] == "failed"] == []
    # Were all refused, or hardly a kind tried, nothing would be said by this.
    outcomes = [answer["outcome"] for answer in answers]
    assert min(outcomes.count("accepted"), outcomes.count("refused")) > INPUTS / 5
    assert len({answer["kind"] for answer in answers}) > 20
    assert max(answer["peak"] for answer in answers) < 3 * 2**30

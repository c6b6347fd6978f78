import resource
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from ivdjax import memory
if sys.argv[1] == "keep":
    memory.keep_freed()
count = 2**26
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * count  # more than an allocator keeps by itself
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_of_a_buffer(how):
    child = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(child.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="counts the pages that Linux hands out")
def test_a_buffer_finds_the_memory_of_the_one_before():
    buffer = 2**26 // resource.getpagesize()
    assert pages_of_a_buffer("hand back") > 0.9 * buffer
    assert pages_of_a_buffer("keep") < 0.1 * buffer

import resource
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from ivdjax import memory
if sys.argv[1] == "keep":
    memory.keep_freed()
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**26, np.uint8)  # more than an allocator keeps by itself
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_of_an_array(how):
    child = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(child.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="counts the pages that Linux hands out")
def test_an_array_finds_the_memory_of_the_one_before():
    array = 2**26 // resource.getpagesize()
    assert pages_of_an_array("hand back") > 0.9 * array
    assert pages_of_an_array("keep") < 0.1 * array

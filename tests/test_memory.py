import resource
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import jax
import jax.numpy as jnp
from ivdjax import memory
if sys.argv[1] == "keep":
    memory.keep_freed()
# The 64 MB of the transform, which are freed within the call, are more than an allocator keeps by itself.
transform = jax.jit(lambda x: jnp.abs(jnp.fft.fft(x)).sum())
x = jnp.ones((2**11, 2**12))
counts = []
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    transform(x).block_until_ready()
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(counts[-1])
"""


def pages_of_a_call(how):
    child = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(child.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="counts the pages that Linux hands out")
def test_a_compiled_program_finds_its_memory_again():
    buffer = 2**23 * 8 // resource.getpagesize()
    assert pages_of_a_call("hand back") > 0.9 * buffer
    assert pages_of_a_call("keep") < 0.1 * buffer

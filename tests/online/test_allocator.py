import subprocess
import sys

import pytest

# Linux with musl has no mallopt; a wheel of torch for it does not exist either.
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs glibc")

FAULTS_OF_ALLOCATING_AGAIN = """
import resource, torch
from online.allocator import keep_freed_memory

assert {keep} == (keep_freed_memory() if {keep} else False)
for _ in range(24):  # an aligned block does not always fit where its like was: some try ten times
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(12_500_000), torch.ones(12_500_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.parametrize("keep", [False, True])
def test_allocating_again_costs_page_faults_unless_memory_is_kept(keep):
    code = FAULTS_OF_ALLOCATING_AGAIN.format(keep=keep)
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert (int(run.stdout) < 100) == keep


MEMORY_OF_HOLES = """
import ctypes
from online.allocator import give_back_holes, keep_memory_together

assert keep_memory_together()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]


def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20


idle = resident()
blocks = []
for _ in range(200):
    blocks.append(libc.malloc(1 << 20))
    ctypes.memset(blocks[-1], 1, 1 << 20)
    libc.malloc(5000)  # stays
for block in blocks:
    libc.free(block)
before = resident()
give_back_holes()
print(before - idle, resident() - idle)
"""


def test_holes_are_given_back():
    run = subprocess.run(
        [sys.executable, "-c", MEMORY_OF_HOLES],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    before, after = map(int, run.stdout.split())
    assert before >= 190
    assert after <= 10

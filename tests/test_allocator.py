import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from featreg.datasets.allocator import keep_memory
if sys.argv[1] == "keep":
    keep_memory()
np.ones(1 << 24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(1 << 24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode):
    found = subprocess.run(
        [sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=True
    )
    return int(found.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_freed_arrays_are_used_again():
    # 128 MiB an array: 32,768 pages of 4 KiB, or 64 of 2 MiB, fetched again each time.
    assert page_faults("keep") < page_faults("leave") / 5

"""How much memory something takes at its peak."""

import subprocess
import sys
import textwrap

import pytest

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="a peak is not told there like this")

PEAK = """
def peak():
    return int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) // 1024
"""


def growth(before: str, code: str, data: bytes = b"") -> int:
    """By how many megabytes the peak rises, in an interpreter that has done nothing else.

    Args:
        before: What is not counted, like imports.
        code: What is.
        data: What both read from the standard input.
    """
    parts = [PEAK, before, "base = peak()", code, "print(peak() - base)"]
    script = "\n".join(map(textwrap.dedent, parts))
    told = subprocess.run(
        [sys.executable, "-c", script], input=data, capture_output=True, check=True, timeout=120
    )
    return int(told.stdout)

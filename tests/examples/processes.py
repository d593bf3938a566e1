"""Programs in a process of their own, the example among them."""

import os
import re
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

SECONDS = 60
ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "docs" / "examples" / "web"


@contextmanager
def started(command, ready, **options):
    """A program up to the end of the block: what it has said when it was ready, and its process.

    Args:
        command: Its name and arguments.
        ready: A pattern of the line on standard error that says so; its group is what it has said.
        **options: Of `subprocess.Popen`.
    """
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options) as process:
        drain = threading.Thread(target=process.stderr.read)
        try:
            found = next(filter(None, map(ready.search, process.stderr)), None)
            assert found, f"{command[0]} did not start"
            drain.start()
            yield found[1], process
        finally:
            process.terminate()
            process.wait(SECONDS)
            if drain.ident:
                drain.join()


# What `process` runs with the address of a stand-in for D-ID, and its key.
SERVER = """
import sys
from functools import partial
from studio import __main__, app
from talkgen.generators.did import Clock, DIdGenerator, Polling

url, key = sys.argv[1:]
generator = DIdGenerator(key, base_url=url, clock=Clock(100.0), polling=Polling(first=1.0))
__main__.create_app = partial(app.create_app, generator=generator)
__main__.main()
"""
READY = re.compile(r"running on (http://\S+)")


def process(arguments, folder, **environment):
    """The example in a process of its own; where it answers, and the process."""
    paths = os.pathsep.join([str(ROOT / "src"), str(EXAMPLE)])
    environment = {
        **os.environ,
        "PYTHONPATH": paths,
        "STORAGE_ROOT": str(folder),
        "STORAGE_MIN_FREE_SPACE_GB": "0.01",
        "TALKGEN_WEB_PORT": "0",
        **environment,
    }
    return started([sys.executable, *arguments], READY, env=environment)


def until(condition, seconds=30):
    """Wait for what another process or thread brings about."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)
    return value

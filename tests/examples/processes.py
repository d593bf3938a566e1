"""Programs in a process of their own."""

import subprocess
import threading
from contextlib import contextmanager

SECONDS = 60


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

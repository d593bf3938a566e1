"""`python -m studio`: the server on one address, in one process."""

import logging
import os
import sys
from contextlib import suppress
from threading import Timer
from types import FrameType

import uvicorn

from studio import metrics
from studio.app import create_app
from studio.config import Config
from talkgen import Settings

FOLDER = {"STORAGE_ROOT": "talkgen-data"}  # unless another is set: a server should not forget


class Server(uvicorn.Server):
    """Lets its tasks end when it is stopped, but not for ever.

    Those that take longer are left to the next start, as by a kill: cancelled, they would be lost.
    """

    def __init__(self, config: uvicorn.Config, stop_seconds: float) -> None:
        super().__init__(config)
        self._leave = Timer(stop_seconds, os._exit, (1,))
        self._leave.daemon = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; asked twice, stop at once."""
        if self.should_exit:
            os._exit(1)
        self._leave.start()
        super().handle_exit(sig, frame)


def main() -> None:
    """Read the environment and serve until told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s:     %(name)s: %(message)s")
    try:
        config, settings = Config.from_env(), Settings.from_env(FOLDER | os.environ)
    except ValueError as error:
        sys.exit(str(error))
    metrics.collect()
    served = uvicorn.Config(create_app(settings, config), host=config.host, port=config.port)
    with suppress(KeyboardInterrupt):
        Server(served, config.stop_seconds).run()


if __name__ == "__main__":
    main()

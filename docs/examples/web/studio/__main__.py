"""`python -m studio`: the server on one address, in one process."""

import logging
import os
import sys

import uvicorn

from studio import metrics
from studio.app import create_app
from studio.config import Config
from talkgen import Settings

FOLDER = {"STORAGE_ROOT": "talkgen-data"}  # unless another is set: a server should not forget


def main() -> None:
    """Read the environment and serve until told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s:     %(name)s: %(message)s")
    try:
        config, settings = Config.from_env(), Settings.from_env(FOLDER | os.environ)
    except ValueError as error:
        sys.exit(str(error))
    metrics.collect()
    uvicorn.run(create_app(settings, config), host=config.host, port=config.port)


if __name__ == "__main__":
    main()

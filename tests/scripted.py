"""A stage that does what a test says, and a pipeline of such stages."""

import anyio
import attrs
import numpy as np

from talkgen import MemoryStorage, Pipeline

PICTURE = np.full((8, 8, 3), 128, np.uint8)


@attrs.define(eq=False)
class Step:
    """A stage that does what its script says."""

    name: str = "step"
    script: object = None
    optional: bool = False
    weight: float = 1.0
    requires: frozenset[str] = frozenset()
    provides: frozenset[str] = frozenset()
    resets: frozenset[str] = frozenset()
    entered: anyio.Event = attrs.field(factory=anyio.Event)

    @property
    def key(self):
        return self.name

    async def run(self, draft, context):
        self.entered.set()
        if self.script is not None:
            await self.script(context)
        return attrs.evolve(draft, metadata={**draft.metadata, self.name: True})


def raising(error):
    async def script(context):
        raise error

    return script


async def forever(context):
    await anyio.sleep_forever()


def pipeline(*stages, **options):
    return Pipeline(stages, storage=MemoryStorage(), **options)

"""What a run of the durability tests did, and the statements that change its journal."""

from __future__ import annotations

import attrs

STATEMENTS = ("BEGIN", "INSERT", "UPDATE", "DELETE", "COMMIT")


@attrs.frozen
class Noted:
    """A stage whose beginnings are noted."""

    stage: object
    ran: list[str]

    def __getattr__(self, name):
        return getattr(self.stage, name)

    def bound(self, backends):
        bind = getattr(self.stage, "bound", None)
        return Noted(bind(backends), self.ran) if bind else self

    async def run(self, draft, context):
        self.ran.append(self.stage.name)
        return await self.stage.run(draft, context)

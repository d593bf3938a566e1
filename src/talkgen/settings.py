"""Settings: plain values, from the environment only when asked."""

from __future__ import annotations

import attrs

__all__ = ["Settings"]


@attrs.frozen
class Settings:
    """Placeholder until the fields are written."""

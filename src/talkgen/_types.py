"""Types that every layer shares."""

from typing import Any, TypeAlias

__all__ = ["JSON"]

JSON: TypeAlias = Any
"""What `json.dumps` takes: None, bool, int, float, str, and lists and dicts of these."""

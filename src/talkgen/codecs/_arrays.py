"""Arrays as the values keep them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["check_array", "frozen"]

Scalar = TypeVar("Scalar", bound=np.generic)


def check_array(array: object) -> None:
    """Refuse what is no array, with a `TypeError`."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"A NumPy array is wanted, not {type(array).__name__}.")


def frozen(array: NDArray[Scalar]) -> NDArray[Scalar]:
    """The array, C-contiguous and read-only; a copy unless it is both already."""
    if array.flags.writeable or not array.flags.c_contiguous:
        array = array.copy(order="C")
        array.flags.writeable = False
    return array

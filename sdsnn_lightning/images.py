"""What all readers of image files have in common."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image


def by_number(name: str) -> list[int | str]:
    """Sorts names as people count: `eye_2.png` before `eye_10.png`.

    Args:
        name: Name of a file.

    Returns:
        A key: texts and numbers in turn.
    """
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def check_depth(image: "Image.Image") -> None:
    """Refuses an image of more than 8 bits a value, of which Pillow would keep white alone.

    Args:
        image: Open.

    Raises:
        ValueError: If it is one.
    """
    if image.mode[0] in "IF":
        raise ValueError("it holds more than 8 bits a value; scale it to 8")

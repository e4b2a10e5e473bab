"""Names of flow runs, such as `jumpy-puppy`: two words that people can say to each other.

Stores tell runs apart by their ids; of two runs with one name, the name means the newer.
"""

from __future__ import annotations

import random
from functools import cache
from typing import Any


def random_name() -> str:
    """Return two words with a hyphen."""
    return str(_library().generate_slug(2))


@cache
def _library() -> Any:
    """Import the words when the first run needs them: half of the 30 ms is reading lists."""
    import coolname

    # neither a user's `random.seed(0)` nor a fork makes two runs of one name
    coolname.replace_random(random.SystemRandom())
    return coolname

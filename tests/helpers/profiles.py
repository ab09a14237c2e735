"""How many examples hypothesis tries: few by default, many with --hypothesis-profile=many, as .ci/run does.

With LIGHTLAKE_TEST_FULL, many are twice as many.
"""

from __future__ import annotations

import os

from hypothesis import settings

FEW, MANY = 25, 200 if os.environ.get("LIGHTLAKE_TEST_FULL") else 100

settings.register_profile("few", max_examples=FEW, deadline=None)
settings.register_profile("many", settings.get_profile("few"), max_examples=MANY, print_blob=True)


def examples(few: int) -> int:
    """Return how many examples a test tries that tries this many by default."""
    return few * settings().max_examples // FEW

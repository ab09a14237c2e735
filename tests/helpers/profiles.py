"""How many examples hypothesis tries: few by default, many with --hypothesis-profile=many, as .ci/run does."""

from __future__ import annotations

from hypothesis import settings

FEW, MANY = 25, 100

settings.register_profile("few", max_examples=FEW, deadline=None)
settings.register_profile("many", settings.get_profile("few"), max_examples=MANY, print_blob=True)


def examples(few: int) -> int:
    """Return how many examples a test tries that tries this many by default."""
    return few * settings().max_examples // FEW

"""A figure of the documentation: what `lightlake plot` writes as JSON, as a small picture.

``lightlake plot WASP-126 ... --to folded.json``, then
``python -m deployments.documentation.figure folded.json docs/images/planet-transits.png``. The lakes are those of the
tutorials.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lake.output import say, whole_file
from tasks.analysis.figures.pictures import packed_png

# Pixels of the picture for one of the figure: it fits beside a menu, and stays below 150 kB.
SCALE = 0.8


def picture(spec: str) -> bytes:
    """Return a figure's specification as a PNG."""
    import vl_convert

    return packed_png(vl_convert.vegalite_to_png(spec, scale=SCALE))


def main() -> None:
    """Write a picture."""
    parser = argparse.ArgumentParser(description="Write a figure of the documentation.")
    parser.add_argument("spec", type=Path, help="what lightlake plot wrote: a file that ends in .json")
    parser.add_argument("to", type=Path, help="the picture to write: a file that ends in .png")
    given = parser.parse_args()
    content = picture(given.spec.read_text())
    with whole_file(given.to) as file:
        file.write(content)
    say(f"{given.to}: {len(content) / 1000:.0f} kB")


if __name__ == "__main__":
    main()

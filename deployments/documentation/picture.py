"""The picture of the README: the top of the demo's page of light curves, as Chromium shows it.

``python -m deployments.documentation.picture lightlake-demo/light_curves.html docs/images/demo.png`` makes it, after
`lightlake demo`.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from lake.errors import ConfigurationError
from lake.output import say, whole_file
from tasks.analysis.figures.pictures import packed_png

WIDTH, HEIGHT = 1000, 760
# Figures are drawn by scripts of the page: so many milliseconds of its own clock are more than they need.
_DRAWN_MS = 15_000


def screenshot(page: Path, width: int = WIDTH, height: int = HEIGHT, timeout_s: float = 120) -> bytes:
    """Return the top of a page as a PNG.

    Parameters
    ----------
    page
        A file of HTML that needs no network.
    width, height
        Pixels.
    timeout_s
        Seconds that Chromium may take.

    Raises
    ------
    ConfigurationError
        If there is no such page or no Chromium, or Chromium makes no picture.
    """
    if not page.is_file():
        raise ConfigurationError(f"there is no page {page}", hint="make it with: lightlake demo")
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        raise ConfigurationError("Chromium is not installed", hint="install the package chromium")
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "page.png"
        command = [
            browser, "--headless", "--disable-gpu", "--no-sandbox", "--hide-scrollbars", "--no-first-run",
            "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder}/profile",
            f"--window-size={width},{height}", f"--virtual-time-budget={_DRAWN_MS}", f"--screenshot={picture}",
            page.absolute().as_uri(),
        ]  # fmt: skip
        done = subprocess.run(  # noqa: S603 - no shell, and a program of this machine
            command, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if not picture.is_file():
            said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise ConfigurationError(f"{browser} made no picture of {page}: {said}", hint="open the page by hand")
        return packed_png(picture.read_bytes())


def main() -> None:
    """Write the picture of a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path, help="the demo's light_curves.html")
    parser.add_argument("picture", type=Path, help="PNG to write")
    given = parser.parse_args()
    png = screenshot(given.page)
    with whole_file(given.picture) as file:
        file.write(png)
    say(f"{given.picture}: {len(png) / 1000:.0f} kB")


if __name__ == "__main__":
    main()

"""Stand-ins of the services of names, and settings that reach them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lake.settings import Settings, load_settings

if TYPE_CHECKING:
    from deployments.sandbox.server import Sandbox
    from deployments.sandbox.sesame import Sesame
    from deployments.sandbox.simbad import NameService


@dataclass
class Services:
    """SIMBAD and Sesame on a port of this machine."""

    box: Sandbox
    simbad: NameService
    sesame: Sesame

    @property
    def endpoints(self) -> dict[str, str]:
        """Their endpoints, as settings have them."""
        return {"simbad": self.simbad.url, "sesame": self.sesame.url}

    def settings(self, root: Path, **more: object) -> Settings:
        """Settings that reach them, without pauses."""
        return load_settings(
            url=str(root), **{"endpoints": self.endpoints, "retry_delay_s": 0.0, "timeout_s": 10.0} | more
        )

    def stop(self) -> None:
        """End them: their port is closed then."""
        self.box.close()
        self.simbad.close()


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    """SIMBAD and Sesame, which are found by the environment, too."""
    from deployments.sandbox import sesame, simbad
    from deployments.sandbox.server import Sandbox
    from tasks.samples import names as resolver

    monkeypatch.setattr(resolver, "PAUSE_S", 0.0)
    with Sandbox() as box:
        made = Services(box, simbad.mount(box), sesame.serve(box))
        for name, url in made.endpoints.items():
            monkeypatch.setenv(f"LIGHTLAKE_ENDPOINTS__{name.upper()}", url)
        monkeypatch.setenv("LIGHTLAKE_RETRY_DELAY_S", "0")
        yield made
        made.simbad.close()

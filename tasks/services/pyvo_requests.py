"""What pyvo takes for requests: its requests are sent by a `Session`, with the limits of all others."""

from __future__ import annotations

import io
from typing import Any

import requests

from tasks.services.http import Session


class _Body(io.BytesIO):
    """A body as pyvo reads it from `raw`: unpacked already."""

    def read(self, size: int | None = -1, **_: Any) -> bytes:
        return super().read(size)


class PyvoRequests(requests.Session):  # type: ignore[misc]  # requests comes without types
    """What pyvo takes for requests: its requests are sent by a `Session`."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session

    def request(self, method: str, url: str, **more: Any) -> requests.Response:
        """Send a request as requests would."""
        wanted = {name: more.get(name) for name in ("params", "data", "files", "headers")}
        try:
            made = self.prepare_request(requests.Request(method, url, **wanted))
        except requests.RequestException as error:
            raise self.session.budget().failed(str(error)) from error
        kind = {name: made.headers[name] for name in ("Content-Type",) if name in made.headers}
        answer = self.session.request(method, made.url, headers=kind, content=made.body or b"")
        reply = requests.Response()
        reply.url, reply.status_code, reply.reason = answer.url, answer.status_code, answer.reason
        reply.headers.update(answer.headers)
        reply._content, reply.raw = answer.content, _Body(answer.content)
        return reply

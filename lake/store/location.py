"""The database that holds a lake's catalogue, and the SQL that attaches it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lake.errors import ConfigurationError
from lake.model.table import quoted
from lake.redact import redacted
from lake.store.storage import Storage

# The page that helps with errors from here.
HELP_TOPIC = "how-to/postgresql"

_KEEPALIVES = (
    "connect_timeout=15",
    "keepalives_idle=30",
    "keepalives_interval=10",
    "keepalives_count=3",
    "tcp_user_timeout=60000",
)


@dataclass(frozen=True)
class CatalogLocation:
    """Which database holds the catalogue.

    Parameters
    ----------
    kind
        sqlite or postgres.
    target
        The file's path, or PostgreSQL's connection string.
    metadata_schema
        PostgreSQL's schema for this lake, so that one database can hold several lakes.
    """

    kind: str
    target: str
    metadata_schema: str | None = None

    @property
    def connection(self) -> str:
        """Return what DuckDB connects to, with keepalives: a dead connection is noticed in a minute, not two hours."""
        if self.kind != "postgres":
            return self.target
        missing = [option for option in _KEEPALIVES if option.partition("=")[0] not in self.target]
        if "://" in self.target:
            return self.target + ("&" if "?" in self.target else "?") + "&".join(missing)
        return " ".join([self.target, *missing])

    @property
    def schema(self) -> str:
        """Return the database's schema that has DuckLake's own tables."""
        return self.metadata_schema or "main"

    @classmethod
    def parse(cls, spec: str | None, storage: Storage) -> CatalogLocation:
        """Read LIGHTLAKE_CATALOG: ``sqlite:PATH`` or ``postgres:CONNINFO [schema=NAME]``.

        Raises
        ------
        ConfigurationError
            If it is neither.
        """
        if not spec and not storage.is_local:
            raise ConfigurationError(
                f"the lake at {storage.root} needs a catalogue elsewhere: S3 cannot hold a database",
                hint="set LIGHTLAKE_CATALOG to sqlite:PATH on this machine, or to postgres:...",
            )
        if not spec:
            return cls("sqlite", str(storage.root / "catalog.sqlite"))
        kind, _, target = spec.partition(":")
        if kind == "sqlite" and target:
            return cls("sqlite", str(Path(target).expanduser().absolute()))
        if kind == "postgres" and target:
            schema = re.search(r"\bschema=(\w+)", target)
            conninfo = re.sub(r"\s*\bschema=\w+", "", target).strip()
            return cls("postgres", conninfo, schema[1] if schema else "public")
        raise ConfigurationError(
            f"LIGHTLAKE_CATALOG={redacted(spec)!r} is not valid",
            hint="use sqlite:PATH or postgres:host=HOST dbname=NAME user=USER [schema=NAME]",
        )

    def __str__(self) -> str:
        return redacted(f"{self.kind}:{self.target}")

    def attach_statement(
        self, storage: Storage, *, create: bool = False, read_only: bool = True, timeout_s: float = 60
    ) -> str:
        """Return the SQL that attaches the lake in a DuckDB with the extensions."""
        options = [f"DATA_PATH {quoted(f'{storage.data}/')}", "OVERRIDE_DATA_PATH true"]
        if read_only:
            options.insert(0, "READ_ONLY")  # DuckLake opens its catalogue in the same way
        if not create:
            options.append("CREATE_IF_NOT_EXISTS false")
        if self.kind == "sqlite":
            # With a write-ahead log a long query and a commit do not block each other; the timeout is for the
            # moments when they do.
            options += ["META_JOURNAL_MODE 'WAL'", f"META_BUSY_TIMEOUT {int(timeout_s * 1000)}"]
        if self.metadata_schema:
            options.append(f"METADATA_SCHEMA {quoted(self.metadata_schema)}")
        return f"ATTACH {quoted(f'ducklake:{self.kind}:{self.connection}')} AS lake ({', '.join(options)})"

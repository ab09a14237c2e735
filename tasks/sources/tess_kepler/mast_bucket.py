"""The layout of MAST's public bucket stpubdata, in that bucket, in a part of it, or in a copy on S3 or on a disk.

Sources of the layout, by pipeline:

- SPOC and Kepler: lightkurve's tests/io/test_read.py reads, of s3://stpubdata,
  tess/public/tid/s0015/0000/0003/7542/2201/tess2019226182529-s0015-0000000375422201-0151-s_lc.fits and
  kepler/public/lightcurves/0082/008264588/kplr008264588-2009131105131_llc.fits;
- K2: astroquery's answer in a notebook, s3://stpubdata/k2/public/lightcurves/c3/206000000/89000/
  ktwo206089508-c03_llc.fits; dataURIs have c13 and c102 as well;
- high-level science products: astroquery 0.4.11, mast/utils.py, mast_relative_path puts MAST's hlsp/ below mast/, and
  the rest is that of the dataURIs, mast:HLSP/tess-spoc/s0045/target/0000/0000/1674/0101/... and
  mast:HLSP/qlp/s0026/0000/0001/6554/9165/... For K2SFF and EVEREST, what is below their own folder is that of
  archive.stsci.edu/missions/hlsp/k2sff/c05/211300000/11380/ and .../everest/v2/c05/...; no source says that the bucket
  has them. Nor has it every file of the others: spacetelescope/tike_content, issue 45.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Self

from lake.errors import ArchiveError
from lake.settings import Settings
from tasks.services.request_counters import Threads
from tasks.services.retry import Answer, with_retries
from tasks.services.store import Entry, Store, open_store
from tasks.sources.tess_kepler import mast_products as facts
from tasks.sources.tess_kepler.mast_products import Named, Pipeline, named

ROOT = "stpubdata"

# The endpoint of files alone, where MAST is searched.
MIRROR = "mast_files"

# Listings that one process asks for at the same time.
CONNECTIONS = 16

# Files and folders below an s3:// prefix up to which it is looked through as a whole: some seconds of requests. Where
# there are more, only what lies where the layout says is found. A folder on a disk has no limit.
MOST = 2000


@dataclass(frozen=True)
class Tree:
    """The folders of a pipeline's files.

    Parameters
    ----------
    base
        Folder, from the bucket's root.
    folders
        Names of the folders in it: of sectors or campaigns, or of KIC's first four digits.
    target
        Folder of a target, below a sector's or campaign's, or else below the base.
    """

    pipeline: Pipeline
    base: str
    folders: str
    target: Callable[[int], str]

    def places(self, target: int, folders: Collection[str], sequence: int | None = None) -> list[str]:
        """Return the folders of a target, or of a sector of it, below the base."""
        place = self.target(target)
        if self.pipeline is facts.KEPLER_SOC:
            return [place] if place.split("/")[0] in folders else []
        return [f"{name}/{place}" for name in folders if sequence is None or int(name[1:]) == sequence]


def _tic(target: int) -> str:
    return "/".join(re.findall("....", f"{target:016d}"))


def _kic(target: int) -> str:
    return f"{target:09d}"[:4] + f"/{target:09d}"


def _epic(target: int) -> str:
    text = f"{target:09d}"
    return f"{text[:4]}00000/{text[4:6]}000"


def _hlsp_epic(target: int) -> str:
    text = f"{target:09d}"
    return f"{text[:4]}00000/{text[4:]}"


TREES = {
    tree.pipeline.name: tree
    for tree in (
        Tree(facts.SPOC, "tess/public/tid", r"s\d{4}", _tic),
        Tree(facts.TESS_SPOC, "mast/hlsp/tess-spoc", r"s\d{4}", lambda target: f"target/{_tic(target)}"),
        Tree(facts.QLP, "mast/hlsp/qlp", r"s\d{4}", _tic),
        Tree(facts.KEPLER_SOC, "kepler/public/lightcurves", r"\d{4}", _kic),
        Tree(facts.K2_SOC, "k2/public/lightcurves", r"c\d+", _epic),
        Tree(facts.K2SFF, "mast/hlsp/k2sff", r"c\d+", _hlsp_epic),
        Tree(facts.EVEREST, "mast/hlsp/everest/v2", r"c\d+", _hlsp_epic),
    )
}


@dataclass(frozen=True)
class Bucket:
    """A folder or s3:// prefix with files of light curves.

    It may be the root of stpubdata or of a copy, hold such a root, begin anywhere below it, or be any tree of files.
    """

    store: Store
    settings: Settings
    _known: dict[str, tuple[str, list[str]] | None] = field(default_factory=dict, repr=False)
    _index: list[dict[str, Entry]] = field(default_factory=list, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    @classmethod
    def at(cls, url: str, settings: Settings, archive: str) -> Self:
        """Open a folder or s3:// prefix; ArchiveError if there is none."""
        bucket = cls(open_store(url, archive, settings), settings)
        if not bucket.tried(bucket.store.exists):
            hint = f"check {setting(url, settings, archive)}"
            raise ArchiveError("there is no such folder", archive=archive, endpoint=url, hint=hint)
        return bucket

    @property
    def is_local(self) -> bool:
        """Say whether it is on a disk of this machine."""
        return self.store.is_local

    def tried(self, ask: Callable[[], Answer]) -> Answer:
        """Send a request, and retry it if that may help."""
        return with_retries(ask, self.settings)

    def path(self, below: str) -> Path:
        """Return the path of a file in a local folder."""
        return self.store.path(below)

    def tree(self, pipeline: Pipeline) -> tuple[str, list[str]] | None:
        """Return where a pipeline's tree begins, and the names of the folders there; None if there is none.

        It is listed once.
        """
        with self._lock:
            if pipeline.name not in self._known:
                self._known[pipeline.name] = next(self._trees(TREES[pipeline.name]), None)
            return self._known[pipeline.name]

    def bases(self) -> list[str]:
        """Return where trees begin."""
        return [found[0] for one in TREES.values() if (found := self.tree(one.pipeline))]

    def _trees(self, tree: Tree) -> Iterator[tuple[str, list[str]]]:
        for base in self._bases(tree.base):
            folders = [path.rsplit("/", 1)[-1] for path in self._listed(base)[1]]
            if fitting := [name for name in folders if re.fullmatch(tree.folders, name)]:
                yield base, fitting

    def _bases(self, base: str) -> list[str]:
        """Return where the base of a tree may be: the address may already contain a part of its path."""
        parts, here = base.split("/"), self.store.root.split("/")
        cut = [parts[n:] for n in range(len(parts), 0, -1) if here[-n:] == parts[:n]]
        return ["/".join(rest) for rest in (*cut, parts, [ROOT, *parts])]

    def folders(self, pipeline: Pipeline, targets: Collection[int], sequence: int | None = None) -> list[str]:
        """Return the folders that a pipeline's files of some targets, or of one sector, would be in."""
        if (found := self.tree(pipeline)) is None:
            return []
        places = (TREES[pipeline.name].places(target, found[1], sequence) for target in targets)
        return [f"{found[0]}/{place}".lstrip("/") for one in places for place in one]

    def locate(self, what: Named, name: str) -> Entry | None:
        """Find a file by its name: where the layout has it, or else anywhere; None if it is not there."""
        folders = self.folders(what.pipeline, [what.target], what.sequence)
        listed = {entry.name: entry for files, _ in self.each(folders) for entry in files}
        found = listed.get(name) or listed.get(f"{name}.gz")
        if found is None and (self.is_local or not self.bases()):
            with self._lock:
                if not self._index:
                    self._index.append({entry.name: entry for entry in self.walk(self.bases())})
            found = self._index[0].get(name) or self._index[0].get(f"{name}.gz")
        return found

    def each(self, folders: Collection[str]) -> Generator[tuple[list[Entry], list[str]], None, None]:
        """List some folders, several at a time; yield the files and folders in each."""
        if len(folders) < 2 or self.is_local:
            yield from map(self._listed, folders)
            return
        with Threads(CONNECTIONS) as pool:
            yield from pool.map(self._listed, folders)

    def walk(self, skip: Collection[str] = ()) -> list[Entry]:
        """List all files that are named as MAST names them, sorted by path.

        Parameters
        ----------
        skip
            Folders to leave out.

        Raises
        ------
        ArchiveError
            If it is far away and has more than MOST files and folders.
        """
        following = [""] if self.is_local else self.bases() or [""]
        entries, seen, n = list[Entry](), set[str](), 0
        while following:
            folders = [path for path in following if path not in skip and self._is_new(path, seen)]
            following = []
            # Closed, so that listings that are no longer needed are not requested.
            with closing(self.each(folders)) as listings:
                for files, below in listings:
                    entries += [entry for entry in files if named(entry.name)]
                    following += below
                    n += len(files) + len(below)
                    if n > MOST and not self.is_local:
                        raise self._too_many()
        return sorted(entries)

    def _listed(self, folder: str) -> tuple[list[Entry], list[str]]:
        return self.tried(partial(self.store.entries, folder))

    def _too_many(self) -> ArchiveError:
        return ArchiveError(
            f"more than {MOST} files and folders: too many to look into each",
            archive=self.store.archive,
            endpoint=self.store.url,
            hint="by the layout of stpubdata, only targets called TIC n, KIC n or EPIC n can be found there; or "
            f"let MAST search and get the files there: LIGHTLAKE_ENDPOINTS__MAST_FILES={self.store.url}",
        )

    def _is_new(self, path: str, seen: set[str]) -> bool:
        """Say whether a folder was not listed yet: links on a disk may lead in circles."""
        real = os.path.realpath(self.path(path)) if self.is_local else path
        is_new = real not in seen
        seen.add(real)
        return is_new


def setting(url: str, settings: Settings, archive: str) -> str:
    """Return the name of the setting that an address is from."""
    name = MIRROR if settings.endpoints.get(MIRROR, "").rstrip("/") == url.rstrip("/") else archive
    return f"LIGHTLAKE_ENDPOINTS__{name.upper()}"

"""Parameters of the ways of getting targets: one model each, for commands and for files that describe a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import cyclopts
from pydantic import Field

from tasks.options import FormField, Options

# Collected in answers of at most 500,000 rows; more would be a catalogue of its own.
MOST_QUASARS = 2_000_000

Sample = Annotated[str | None, FormField("Name of the sample in the lake", empty="by what is asked for")]


class LiteratureOptions(Options):
    """Of a sample of the literature, which is known by its name."""

    label: Annotated[str | None, FormField("Label of the targets", empty="the sample's own, such as Yang 18")] = None
    sample: Sample = None


class PaperOptions(Options):
    """Of the objects of a paper."""

    paper: Annotated[str, FormField("Bibcode of the paper, such as 2018ApJ...862..109Y")]
    label: Annotated[str | None, FormField("Label of the targets", empty="the bibcode")] = None
    service: Annotated[Literal["ned", "simbad", "vizier"], FormField("Service that is asked")] = "ned"
    table: Annotated[str | None, FormField("Table of the paper at VizieR, such as J/ApJ/933/180/table2")] = None
    sample: Sample = None


class SdssOptions(Options):
    """Of quasars of SDSS."""

    num: Annotated[int, FormField("Number of quasars")] = Field(10, ge=1, le=MOST_QUASARS)
    zmin: Annotated[float, FormField("Redshifts above this")] = Field(0.0, ge=-1.0)
    zmax: Annotated[float, FormField("Redshifts below this")] = Field(10.0, le=1000.0)
    seed: Annotated[
        int | None, FormField("Draw them at random, and for the same seed the same ones", empty="in order of specObjID")
    ] = Field(None, ge=0, le=2**31 - 1)
    release: Annotated[int, FormField("Data release of SDSS")] = Field(16, ge=8, le=99)
    label: Annotated[str, FormField("Label of the targets")] = "SDSS"
    sample: Sample = None


class ZtfOptions(Options):
    """Of objects of ZTF, by their names."""

    oids: Annotated[
        list[str], FormField("Name of an object, such as ZTF18aabtxvd", command=cyclopts.Parameter(name="--oid"))
    ] = Field(min_length=1)
    label: Annotated[str, FormField("Label of the targets")] = "ZTF-Objname"
    sample: Sample = None


class FileOptions(Options):
    """Of a list of targets in a file."""

    path: Annotated[Path, FormField("ECSV, CSV, VOTable, FITS or Parquet")]
    sample: Sample = None
    label: Annotated[str | None, FormField("Label of all targets", empty="the sample's name")] = None
    label_column: Annotated[str | None, FormField("Column that has each target's label")] = None
    ra: Annotated[str | None, FormField("Column of right ascension", empty="the one that is recognised")] = None
    dec: Annotated[str | None, FormField("Column of declination", empty="the one that is recognised")] = None
    frame: Annotated[str | None, FormField("Frame of the positions", empty="the file's own, or icrs")] = None
    epoch: Annotated[float | None, FormField("Julian year of the positions")] = None
    bibcode: Annotated[str | None, FormField("Paper that lists the targets")] = None

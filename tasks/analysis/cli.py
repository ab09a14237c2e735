"""Commands that draw: plot, report."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from lake.cli import LakeURL
from lake.errors import ConfigurationError
from lake.names import check_archive, check_band, check_sample, current_archive
from lake.output import say
from lake.settings import load_settings
from lake.text import counted, one_line

if TYPE_CHECKING:
    from lake.query import Lake
    from tasks.analysis.figures.points import Look

Format = Literal["html", "png", "svg", "pdf", "json"]
Scale = Literal["linear", "symlog", "log"]
_Flag = Parameter(negative=())


def plot(
    target: str | None = None,
    *,
    to: Path,
    sample: str | None = None,
    format: Format = "html",
    lake: LakeURL = None,
    archive: str | None = None,
    band: Annotated[list[str] | None, _Flag] = None,
    normalised: Annotated[bool, _Flag] = False,
    magnitudes: Annotated[bool, _Flag] = False,
    scale: Scale = "linear",
    clip: float | None = None,
    bad: Annotated[bool, _Flag] = False,
    scaled: Annotated[bool, _Flag] = False,
    fold: Annotated[float | None, Parameter(name=["--fold", "--period"])] = None,
    epoch: float | None = None,
    mean: float = 30.0,
) -> int:
    """Draw light curves of a target, or of each target of a sample.

    A figure is a page with zoom, or a picture. Every measurement is drawn, or counted in the caption with the
    reason why not.

    Parameters
    ----------
    target
        Any of its names, or its id.
    to
        File to write: its extension (.html, .png, .svg, .pdf, .json) sets the form. With --sample a folder.
    sample
        Draw all targets of this sample, with an index page; those that are up to date are not drawn again.
    format
        Form of a sample's figures.
    archive
        Only this archive.
    band
        Only this band; may be given several times. Default: all but those that repeat a better one, such as apertures.
    normalised
        Draw fluxes divided by their median, as in view normalised.
    magnitudes
        Draw magnitudes, bright ones on top.
    scale
        Of the axis of fluxes.
    clip
        Hide measurements this many standard deviations and more from the mean of their band; their times are marked.
    bad
        Draw measurements that their archive advises against, too, as empty marks.
    scaled
        Draw electrons per second and relative fluxes among those in mJy, by a factor that the legend has.
    fold
        Fold times at the barycentre by this many days.
    epoch
        MJD (TDB, barycentre) of phase 0; default: the first measurement.
    mean
        Width in days of the running mean.
    """
    from lake.query import Lake
    from tasks.analysis.figures.points import Fold, Look

    if fold is not None and not 0 < fold < math.inf:
        raise ConfigurationError(f"--fold cannot be {fold:g}", hint="give days, more than 0")
    if epoch is not None and fold is None:
        raise ConfigurationError("--epoch is of a period", hint="add: --fold DAYS")
    if not 0 < mean < math.inf:
        raise ConfigurationError(f"--mean cannot be {mean:g}", hint="give days, more than 0")
    if clip is not None and not 0 < clip < math.inf:
        raise ConfigurationError(f"--clip cannot be {clip:g}", hint="give standard deviations, more than 0: 3")
    if normalised and magnitudes:
        raise ConfigurationError(
            "magnitudes are not divided by a median", hint="leave out --normalised or --magnitudes"
        )
    if (target is None) == (sample is None):
        raise ConfigurationError("it is not clear what is to be drawn", hint="give a target, or --sample NAME")
    look = Look(
        axis="normalised" if normalised else "magnitude" if magnitudes else "flux",
        scale=scale,
        clip=clip,
        with_bad=bad,
        bands=tuple(band) if band else None,
        scaled=scaled,
        fold=None if fold is None else Fold(fold, math.nan if epoch is None else epoch),
        mean_width_d=mean,
    )
    with Lake(lake) as opened:
        archive = current_archive(opened, archive)
        if archive is not None:
            check_archive(opened, archive)
        for one in band or ():
            check_band(opened, one, archive)
        if target is None:
            check_sample(opened, sample)
            return _many(opened, to, look, sample, archive, format)
        return _one(opened, target, to, look, archive)


def report(*, to: Path = Path("report.html"), lake: LakeURL = None) -> int:
    """Write a page of the lake: coverage, sky, points by year, age of answers, runs, what is missing, sizes.

    Each number has the query that gives it. The page needs no network.

    Parameters
    ----------
    to
        File to write.
    """
    from lake.query import Lake
    from tasks.analysis.report.lake_page import write_report
    from tasks.sources.registry import known

    if to.suffix.lower() not in (".html", ".htm"):
        raise ConfigurationError(f"{to.name} does not say that it is a page", hint=f"name it {to.stem}.html")
    with Lake(lake) as opened:
        written = write_report(opened, to, sorted(known()))
    say(one_line(f"{written.path}: {written.summary}"))
    return 0


def _one(opened: Lake, target: str, to: Path, look: Look, archive: str | None) -> int:
    from tasks.analysis.figures.page import Packed, write_page
    from tasks.analysis.figures.saving import encoded, format_of, save
    from tasks.analysis.figures.target import target_figure

    kind = format_of(to)
    spec = target_figure(opened, target, look, archive)
    if not any(name.startswith(("panel", "events")) for name in spec["datasets"]):
        raise ConfigurationError(
            f"the lake has no measurements of {target} of that kind",
            hint="see what it has with: lightlake sql 'SELECT name, archive, band, count(*) FROM target_lightcurves "
            "GROUP BY ALL'",
        )
    if kind == "html":
        one = Packed.of(spec)
        write_page([one], one.title, to)
    else:
        save(encoded(spec, kind), to)
    for line in spec["usermeta"]["caption"][:2]:
        say(one_line(line))
    say(one_line(f"{to}: light curves of {target}"))
    return 0


def _many(opened: Lake, to: Path, look: Look, sample: str | None, archive: str | None, kind: Format) -> int:
    from tasks.analysis.figures.gallery import draw_sample
    from tasks.progress import Bars

    with Bars() as bars:
        drawn = draw_sample(
            opened,
            to,
            look,
            sample=sample,
            archive=archive,
            kind=kind,
            workers=load_settings().workers,
            begin=lambda n: bars.begin("figures", n, "targets") if n else None,
            advance=lambda n: bars.advance("figures", n),
        )
    kept = f", {drawn.kept} were up to date" if drawn.kept else ""
    say(one_line(f"{drawn.index}: {counted(drawn.made, 'figure')} drawn{kept}"))
    return 0

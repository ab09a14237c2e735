"""Which channels, PCUs and layers make a light curve of the PCA, where the standard products' bands do not serve.

Sources: HEASARC's recipes for pcaprepobsid, maketime and pcaextlc2 (https://heasarc.gsfc.nasa.gov/docs/xte/).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from lake.commit.ledger import canonical
from lake.errors import ConfigurationError
from tasks.sources.base import Band, Origin
from tasks.sources.rxte import energies
from tasks.sources.rxte import mission as rxte

# The cookbook's: the Earth's limb well below, the source near the axis, and at least one detector on. The notebook that
# left out NUM_PCU_ON and the test for NULL took bins in which nothing was on.
GTI = "(ELV > 4) && (OFFSET < 0.1) && (NUM_PCU_ON > 0) && (NUM_PCU_ON < 6) && !ISNULL(ELV)"

# Standard 2 has a spectrum each 16 s.
STD2_BIN_S = 16.0
PCUS, LAYERS = (0, 1, 2, 3, 4), (1, 2, 3)

# Archive of what is extracted anew: its releases lie beside the standard products.
NAME = "rxte_pca"

_NOTES = (
    "Count rates of RXTE's PCA, a PCU, in channels that a user chose; each choice is a release. heasoft: by pcaextlc2, "
    "net, corrected for dead time. standard2: counts of Standard-2 files, with the background in them, not corrected "
    "for dead time; not to be compared with the others. Times and ids as in archive rxte."
)

Method = Literal["heasoft", "standard2"]


@dataclass(frozen=True)
class ChannelCut:
    """The PCA's counts that make a light curve, and how they are extracted.

    Parameters
    ----------
    method
        heasoft: pcaextlc2's rate, of an average PCU, less the background, corrected for dead time. standard2: counts of
        the Standard-2 file a second and PCU, with the background in them, and not corrected for dead time.
    chmin, chmax
        Absolute channels, 0 to 255, both ends included; the same in each gain epoch, which is not the same energies.
    emin_kev, emax_kev
        Instead of channels: energies, whose channels follow from each observation's gain epoch.
    pcus, layers
        Detectors 0 to 4 and anode layers 1 to 3; all of them by default.
    bin_s
        Length of a bin, seconds: a multiple of 16.
    gti
        Condition on the filter file's columns that a bin has to meet, as maketime takes it.

    Raises
    ------
    ConfigurationError
        If it makes no sense.
    """

    method: Method
    chmin: int | None = None
    chmax: int | None = None
    emin_kev: float | None = None
    emax_kev: float | None = None
    pcus: tuple[int, ...] = PCUS
    layers: tuple[int, ...] = LAYERS
    bin_s: float = STD2_BIN_S
    gti: str = GTI

    def __post_init__(self) -> None:
        object.__setattr__(self, "pcus", tuple(sorted(set(self.pcus))))
        object.__setattr__(self, "layers", tuple(sorted(set(self.layers))))
        # 2 and 2.0 are the same cut, and its granules' ids are made of the numbers as text.
        for name in ("emin_kev", "emax_kev", "bin_s"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, float(value))
        channels, kev = (self.chmin, self.chmax), (self.emin_kev, self.emax_kev)
        if sorted(sum(end is None for end in pair) for pair in (channels, kev)) != [0, 2]:
            raise ConfigurationError(
                "a re-extraction takes chmin and chmax, or emin_kev and emax_kev", hint="such as chmin=5, chmax=10"
            )
        low, high = kev if None in channels else channels
        top = math.inf if None in channels else energies.ABSOLUTE_CHANNELS - 1
        if low is None or high is None or not 0 <= low <= high <= top or math.isinf(high):
            raise ConfigurationError(f"no channels lie from {low} to {high}", hint="absolute channels are 0 to 255")
        for name, all_ in (("pcus", PCUS), ("layers", LAYERS)):
            given = getattr(self, name)
            if not given or not set(given) <= set(all_):
                raise ConfigurationError(f"{name} cannot be {list(given)}", hint=f"some of {list(all_)}")
        if self.bin_s < STD2_BIN_S or self.bin_s % STD2_BIN_S:
            raise ConfigurationError(f"bin_s cannot be {self.bin_s:g}", hint="Standard 2 is sampled each 16 s")
        if not self.gti.strip() or any(sign in self.gti for sign in "\n\r\"'"):
            raise ConfigurationError("gti is no expression of maketime's", hint=f"the default is {GTI}")

    @property
    def band(self) -> str:
        """Return the name of its band in the lake."""
        if self.chmin is not None:
            return f"pca_ch{self.chmin}_{self.chmax}"
        return f"pca_{_as_text(self.emin_kev)}_{_as_text(self.emax_kev)}kev"

    @property
    def kind(self) -> str:
        """Return n for a net rate and s for one with background, as for standard products."""
        return "n" if self.method == "heasoft" else "s"

    @property
    def instrument(self) -> str:
        """Return the instrument."""
        return "pca"

    @property
    def nominal_kev(self) -> tuple[float, float] | None:
        """Return the requested energies, keV; None if channels were requested."""
        return None if self.emin_kev is None or self.emax_kev is None else (self.emin_kev, self.emax_kev)

    def channels(self, epoch: int) -> tuple[int, int]:
        """Return first and last absolute channel in a gain epoch.

        Raises
        ------
        ValueError
            If the energies lie beyond the channels.
        """
        if self.chmin is not None and self.chmax is not None:
            return self.chmin, self.chmax
        return channel_range(self.emin_kev or 0.0, self.emax_kev or 0.0, epoch, self.detector(epoch))

    def detector(self, epoch: int) -> str | None:
        """Return the detector whose energies count, as in table channels; None: all PCUs."""
        return "PCU0" if epoch == 5 and self.pcus == (0,) else None

    @property
    def origin(self) -> Origin:
        """Return the archive and release of its rows: each cut is a release of its own."""
        usual = (self.pcus, self.layers, self.bin_s, self.gti) == (PCUS, LAYERS, STD2_BIN_S, GTI)
        digest = hashlib.blake2b(canonical(self.as_parameters()).encode(), digest_size=3).hexdigest()
        release = f"{self.method}_{self.band.removeprefix('pca_')}{'' if usual else f'_{digest}'}"
        what = f"PCA, {self.band.removeprefix('pca_')}, {self.bin_s:g} s bins"
        kind = "net, dead time corrected" if self.kind == "n" else "with background, dead time not corrected"
        return replace(
            rxte.ORIGIN,
            name=NAME,
            command="lightlake rxte",
            title="RXTE: PCA light curves in chosen channels",
            release=release,
            bands=(Band(self.band, f"{what}; {kind}", rxte.UNIT),),
            notes=_NOTES,
        )

    def as_parameters(self) -> dict[str, Any]:
        """Return it as parameters of a granule, without those that are not set."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def _as_text(energy: float | None) -> str:
    """Format an energy as short text, different for each energy."""
    return repr(energy).removesuffix(".0")


def channel_range(emin_kev: float, emax_kev: float, epoch: int, detector: str | None = None) -> tuple[int, int]:
    """Return the absolute channels that lie between two energies, as nearly as channels can.

    Of the Standard-2 channels those are taken whose middle is within; at least the one that has the range's middle.

    Parameters
    ----------
    emin_kev, emax_kev
        Energies, keV.
    epoch, detector
        Gain epoch, 1 to 5, and detectors as table channels has them; None: all PCUs, in epoch 5 PCU1-4.

    Returns
    -------
    tuple of int
        First and last absolute channel, of whole Standard-2 channels.

    Raises
    ------
    ValueError
        If there is no such epoch or detector, or the energies lie beyond the channels.
    """
    table = energies.channels()
    name = detector or (energies.ALL_PCUS if epoch < 5 else "PCU1-4")
    rows = [row for row in table.to_pylist() if row["epoch"] == epoch and row["detector"] == name]
    if not rows:
        raise ValueError(f"there is no gain epoch {epoch} with detector {name}")
    # Nobody says where the first five channels begin: 0 keV.
    middles = [((row["emin_kev"] or 0.0) + row["emax_kev"]) / 2 for row in rows]
    within = [row["channel"] for row, middle in zip(rows, middles, strict=True) if emin_kev <= middle <= emax_kev]
    if not within:
        centre = (emin_kev + emax_kev) / 2
        within = [row["channel"] for row in rows if (row["emin_kev"] or 0.0) <= centre < row["emax_kev"]]
    if not within:
        raise ValueError(f"{emin_kev:g} to {emax_kev:g} keV lie beyond the PCA's channels")
    return min(within), max(within)

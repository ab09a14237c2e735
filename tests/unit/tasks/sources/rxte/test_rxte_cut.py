"""Which channels a light curve is of: the published energies of channels 5 to 10, refusals, one release a cut."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

from lake.errors import ConfigurationError
from tasks.sources.rxte import energies
from tasks.sources.rxte.cut import GTI, NAME, ChannelCut, channel_range

# What channels 5 to 10 are of, keV, by gain epoch (in the fifth, of PCU1-4).
PUBLISHED = {1: (1.51, 3.04), 2: (1.61, 3.44), 3: (1.94, 4.05), 4: (2.13, 4.63), 5: (2.06, 4.49)}
DETECTORS = [*((epoch, None) for epoch in PUBLISHED), (5, "PCU0")]


def cut(**more: Any) -> ChannelCut:
    return ChannelCut(**{"method": "standard2", "chmin": 5, "chmax": 10, **more})


@pytest.mark.parametrize("epoch", PUBLISHED)
def test_channels_5_to_10_have_the_published_energies(epoch: int) -> None:
    assert energies.energy_range(5, 10, epoch) == PUBLISHED[epoch]
    assert channel_range(*PUBLISHED[epoch], epoch) == (5, 10)
    by_energy = cut(chmin=None, chmax=None, emin_kev=PUBLISHED[epoch][0], emax_kev=PUBLISHED[epoch][1])
    assert by_energy.channels(epoch) == cut().channels(epoch) == (5, 10)


@pytest.mark.parametrize(("epoch", "detector"), DETECTORS)
def test_energies_and_back_give_whole_standard_2_channels(epoch: int, detector: str | None) -> None:
    for first, last in ((0, 255), (0, 4), (5, 5), (5, 10), (53, 54), (54, 55), (100, 137), (136, 249), (250, 255)):
        low, high = energies.energy_range(first, last, epoch, detector)
        back = channel_range(low or 0.0, high, epoch, detector)
        assert energies.std2_channel(back).tolist() == energies.std2_channel([first, last]).tolist()
        assert energies.energy_range(*back, epoch, detector) == (low, high)


@pytest.mark.parametrize(("epoch", "detector"), DETECTORS)
def test_any_energies_are_met_within_a_standard_2_channel(epoch: int, detector: str | None) -> None:
    top = energies.energy_range(0, 255, epoch, detector)[1]
    for low, high in combinations((0.5, 2.0, 2.01, 4.0, 9.0, 9.1, 20.0, 40.0, 0.9 * top), 2):
        first, last = channel_range(low, high, epoch, detector)
        for asked, channel, end in ((low, first, 0), (high, last, 1)):
            below, above = energies.energy_range(channel, channel, epoch, detector)
            assert abs((below or 0.0, above)[end] - asked) <= above - (below or 0.0)


def test_a_range_within_one_channel_is_that_channel() -> None:
    assert channel_range(3.0, 3.01, 5) == (7, 7)
    assert channel_range(0.0, 0.1, 5) == (0, 4)


def test_energies_of_pcu_0_alone_are_its_own_in_epoch_5() -> None:
    energies = {"chmin": None, "chmax": None, "emin_kev": 2.0, "emax_kev": 20.2}
    assert cut(pcus=(0,)).detector(4) is None
    assert cut(pcus=(0,)).detector(5) == "PCU0"
    assert cut(pcus=(0, 2)).detector(5) is None
    assert cut(**energies).channels(5) == channel_range(2.0, 20.2, 5)
    alone = cut(**energies, pcus=(0,)).channels(5)
    assert alone == channel_range(2.0, 20.2, 5, "PCU0") != channel_range(2.0, 20.2, 5)


def test_what_lies_beyond_the_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="200 to 300 keV lie beyond"):
        channel_range(200, 300, 3)
    with pytest.raises(ValueError, match="no gain epoch 6"):
        channel_range(2, 9, 6)
    with pytest.raises(ValueError, match="no gain epoch 4 with detector PCU0"):
        channel_range(2, 9, 4, "PCU0")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"chmin": None, "chmax": None}, "takes chmin and chmax, or emin_kev and emax_kev"),
        ({"chmax": None}, "takes chmin and chmax"),
        ({"emin_kev": 2.0, "emax_kev": 9.0}, "takes chmin and chmax"),
        ({"chmin": None, "emax_kev": 9.0}, "takes chmin and chmax"),
        ({"chmin": 11}, "no channels lie from 11 to 10"),
        ({"chmin": -1}, "no channels lie"),
        ({"chmax": 256}, "no channels lie"),
        ({"chmin": None, "chmax": None, "emin_kev": 9.0, "emax_kev": 2.0}, "no channels lie"),
        ({"chmin": None, "chmax": None, "emin_kev": 2.0, "emax_kev": float("inf")}, "no channels lie"),
        ({"chmin": None, "chmax": None, "emin_kev": float("nan"), "emax_kev": 2.0}, "no channels lie"),
        ({"pcus": ()}, "pcus cannot be"),
        ({"pcus": (2, 5)}, "pcus cannot be"),
        ({"layers": (0,)}, "layers cannot be"),
        ({"bin_s": 8.0}, "bin_s cannot be 8"),
        ({"bin_s": 24.0}, "bin_s cannot be 24"),
        ({"gti": " "}, "gti is no expression"),
        ({"gti": "ELV > 4\nclobber"}, "gti is no expression"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        cut(**given)


def test_each_cut_has_a_release_of_its_own_and_the_same_cut_the_same() -> None:
    energies = {"chmin": None, "chmax": None, "emin_kev": 2.0}
    different = [
        cut(),
        cut(method="heasoft"),
        cut(chmax=11),
        cut(**energies, emax_kev=9.0),
        cut(**energies, emax_kev=9.5),
        cut(pcus=(2,)),
        cut(pcus=(0, 2)),
        cut(layers=(1,)),
        cut(bin_s=32.0),
        cut(gti="ELV > 10"),
    ]
    releases = [one.origin.release for one in different]
    assert len(set(releases)) == len(releases)
    assert {one.origin.name for one in different} == {NAME}
    assert cut().origin.release == "standard2_ch5_10"
    assert cut(method="heasoft").origin.release == "heasoft_ch5_10"
    same = cut(pcus=(4, 3, 2, 1, 0, 0), layers=(3, 2, 1), bin_s=16.0, gti=GTI)
    assert (same, same.origin) == (cut(), cut().origin)
    assert cut(pcus=(2, 0)).origin == cut(pcus=(0, 2)).origin
    assert cut(pcus=(2, 0)).as_parameters() == cut(pcus=(0, 2)).as_parameters()


def test_close_energies_have_names_of_their_own() -> None:
    energies = {"chmin": None, "chmax": None, "emax_kev": 10.0}
    first, second = cut(**energies, emin_kev=2.0000001), cut(**energies, emin_kev=2.0)
    assert first.origin.release != second.origin.release


def test_the_same_numbers_in_other_types_are_the_same_cut() -> None:
    energies: dict[str, Any] = {"chmin": None, "chmax": None}
    whole, real = cut(**energies, emin_kev=2, emax_kev=9), cut(**energies, emin_kev=2.0, emax_kev=9.0)
    assert whole.as_parameters() == real.as_parameters()
    assert repr(whole.as_parameters()) == repr(real.as_parameters()), "else its granules have other ids"
    pieces = cut(pcus=(2,), bin_s=32), cut(pcus=(2,), bin_s=32.0)
    assert pieces[0].origin.release == pieces[1].origin.release


def test_net_rates_and_those_with_background_are_told_apart() -> None:
    assert (cut().kind, cut(method="heasoft").kind) == ("s", "n")
    (with_background,), (net,) = cut().origin.bands, cut(method="heasoft").origin.bands
    assert "with background, dead time not corrected" in with_background.description
    assert "net, dead time corrected" in net.description

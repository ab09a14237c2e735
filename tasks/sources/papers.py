"""The papers that archives ask to be cited, as BibTeX has them. A bibcode gives year, journal, volume and page."""

from __future__ import annotations

from lake.model.papers import Paper

_PAPERS = {
    paper.bibcode: paper
    for paper in (
        Paper(
            "2006ApJS..163..401J",
            "{Jahoda}, Keith and others",
            "Calibration of the Rossi X-Ray Timing Explorer Proportional Counter Array",
        ),
        Paper(
            "2009ApJS..180..192F",
            "{Frontera}, F. and others",
            "The Gamma-Ray Burst Catalog Obtained with the Gamma-Ray Burst Monitor Aboard BeppoSAX",
            doi="10.1088/0067-0049/180/1/192",
        ),
        Paper(
            "2015JATIS...1a4003R",
            "{Ricker}, George R. and others",
            "Transiting Exoplanet Survey Satellite (TESS)",
            doi="10.1117/1.JATIS.1.1.014003",
        ),
        Paper("2016arXiv161205560C", "{Chambers}, K. C. and others", "The Pan-STARRS1 Surveys"),
        Paper("2019A&A...630A..92B", "{Bonanos}, A. Z. and others", "The Hubble Catalog of Variables (HCV)"),
        Paper(
            "2019PASP..131a8003M",
            "{Masci}, Frank J. and others",
            "The Zwicky Transient Facility: Data Processing, Products, and Archive",
            doi="10.1088/1538-3873/aae8ac",
            eprint="1902.01872",
        ),
        Paper(
            "2021arXiv210109836I",
            "{IceCube Collaboration}",
            "IceCube Data for Neutrino Point-Source Searches Years 2008-2018",
        ),
        Paper(
            "2023A&A...674A...1G",
            "{Gaia Collaboration} and {Vallenari}, A. and others",
            "Gaia Data Release 3. Summary of the content and survey properties",
            doi="10.1051/0004-6361/202243940",
            eprint="2208.00211",
        ),
        Paper(
            "2023AJ....165...36M",
            "{Meisner}, Aaron M. and others",
            "unTimely: a Full-sky, Time-domain unWISE Catalog",
            doi="10.3847/1538-3881/aca2ab",
        ),
        Paper(
            "2025MNRAS.536.3707S",
            "{Smith}, Leigh C. and others",
            "VIRAC2: NIR astrometry and time series photometry for 500M+ stars from the VVV and VVVX surveys",
        ),
    )
}


def papers_of(bibcode: str | None) -> tuple[Paper, ...]:
    """Return the paper of a bibcode, if its facts are known."""
    return (_PAPERS[bibcode],) if bibcode in _PAPERS else ()

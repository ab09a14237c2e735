"""Options of VIRAC: the form of its flow, its command and the parameters of its granules are made from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from tasks.options import FormField, Options

if TYPE_CHECKING:
    from tasks.sources.virac.tiles import Selection

PATTERN = "n*_*.hdf5"

# A source is kept if it has more Ks detections than this.
MIN_KS = 20


class ViracOptions(Options):
    """Options of a run over VIRAC's tiles."""

    tiles: Annotated[
        str,
        FormField(
            "Folder of the tiles, or s3://BUCKET/PREFIX; or eso:n1024_9000000,n512_2652179 for what the public "
            "release, VIRAC2, has in those"
        ),
    ]
    pattern: Annotated[str, FormField("Names of the tiles' files")] = PATTERN
    min_ks: Annotated[
        int,
        Field(ge=0),
        FormField("Keep sources with more Ks detections than this; table sources names the others, with the reason"),
    ] = MIN_KS
    bands: Annotated[
        list[Literal["H", "J", "Ks", "Y", "Z"]] | None, FormField("Bands whose rows are kept", empty="all bands")
    ] = None
    retry_failed: Annotated[bool, FormField("Exactly the tiles that failed or were rejected before")] = False
    shard: Annotated[
        str | None,
        FormField(
            "One of several jobs, such as 0/96. Without it jobs share the tiles, too: each takes what no other has",
            empty="all tiles",
        ),
    ] = None

    @property
    def cut(self) -> Selection:
        """Return what is kept of a tile."""
        from tasks.sources.virac.tile import BANDS
        from tasks.sources.virac.tiles import Selection

        return Selection(self.min_ks, tuple(sorted(self.bands or BANDS)))

    def model_post_init(self, context: object) -> None:
        """See that there are such a folder and such a shard."""
        from tasks.sources.virac.pieces import check_place, parse_shard

        check_place(self.tiles)
        if self.shard is not None:
            parse_shard(self.shard)

"""Where use meets: a network, its parameters and a schedule become a function from dark images to bright ones."""

from sel.extras import needs

with needs("use"):
    from sel.restoration.tiled import Report, TiledRestore
    from sel.restoration.tiles import MARGIN, MULTIPLE, Tiles, extended, lay_tiles
    from sel.restoration.whole import Restore, make_restore

__all__ = [
    "MARGIN",
    "MULTIPLE",
    "Report",
    "Restore",
    "TiledRestore",
    "Tiles",
    "extended",
    "lay_tiles",
    "make_restore",
]

"""What is measured of a set of restored images, and the pictures and reports that show it. See docs/metrics.md."""

from sel.extras import needs

with needs("use"):
    from sel.scoring.report import Gallery, write_contact_sheet, write_report
    from sel.scoring.scores import SCORES, Score, possible_scores, score_image, score_pairs, score_variants, summarize

__all__ = [
    "SCORES",
    "Gallery",
    "Score",
    "possible_scores",
    "score_image",
    "score_pairs",
    "score_variants",
    "summarize",
    "write_contact_sheet",
    "write_report",
]

"""What people decided about a teacher's rows: kept for good, in one SQLite file, and as a spreadsheet."""

from drllama.reviews.sample import Precision, drawing_order, precision_of
from drllama.reviews.spreadsheet import Reviewable, Sheet, exported, read_sheet, restored_texts, rulings_of
from drllama.reviews.store import Conflict, ReviewStore

__all__ = [
    "Conflict",
    "Precision",
    "ReviewStore",
    "Reviewable",
    "Sheet",
    "drawing_order",
    "exported",
    "precision_of",
    "read_sheet",
    "restored_texts",
    "rulings_of",
]

"""The table of studies: adding one is its file and a row here."""

from collections.abc import Mapping

from . import books, length, recall, scaling, tokens, warpeace
from .study import Study

STUDIES: Mapping[str, Study] = {
    "length": length.STUDY,
    "recall": recall.STUDY,
    "warpeace": warpeace.STUDY,
    "books": books.STUDY,
    "tokens": tokens.STUDY,
    "scaling": scaling.STUDY,
}

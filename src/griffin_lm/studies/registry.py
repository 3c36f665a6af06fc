"""The table of studies: adding one is its file and a row here."""

from collections.abc import Mapping

from . import length
from .study import Study

STUDIES: Mapping[str, Study] = {
    "length": length.STUDY,
}

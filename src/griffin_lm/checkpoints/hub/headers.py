"""What a repository's weights are, without fetching them: headers of safetensors by range."""

from dataclasses import dataclass

from ...models import ModelConfig
from ..tensors import Entry
from .cache import Snapshot
from .client import Listing, api, explain
from .fetch import config_of, look, planned
from .names import HubId
from .selection import Selection


@dataclass(frozen=True)
class Remote:
    """A checkpoint on the hub.

    sizes: bytes of the files that would be fetched. tensors: of each safetensors file its tensors;
    empty for layouts whose headers cannot be read apart from their data.
    """

    snapshot: Snapshot
    config: ModelConfig | None
    sizes: dict[str, int]
    tensors: dict[str, dict[str, Entry]]


def inspect_remote(hub: HubId) -> Remote:
    """Looks at a checkpoint on the hub; only its small files are kept. Raises as `snapshot`."""
    found, selection = look(hub)
    there = planned(found, selection)
    sizes = {name: found.files[name].size for name in selection.files}
    return Remote(there, config_of(there), sizes, _headers(found, selection))


def _headers(found: Listing, selection: Selection) -> dict[str, dict[str, Entry]]:
    read: dict[str, dict[str, Entry]] = {}
    for name in selection.weights:
        if not name.endswith(".safetensors"):
            continue
        try:
            header = api().parse_safetensors_file_metadata(
                found.hub.repo,
                name,
                revision=found.commit,
            )
            read[name] = {
                tensor: Entry(row.dtype, tuple(row.shape), *row.data_offsets)
                for tensor, row in header.tensors.items()
            }
        except Exception as error:
            raise explain(error, found.hub, f"read the header of {name} of") from error
    return read

"""Makes orbax.zip, the good Orbax folders of the fuzzing.

    python -m griffin_lm.bench.reliability.orbax_seeds

Run again only to change them: tensorstore names its files at random, so every run makes others.
"""

import tempfile
import zipfile
from pathlib import Path
from typing import Any

from ...checkpoints import open_source, save_model
from ...shapes import JSON
from .seeds import model


def make(folder: Path) -> None:
    """ours/ as we write it; ocdbt/ compressed by zstd in plain nodes; zarr/ compressed by gzip."""
    import tensorstore as ts

    save_model(model(), folder / "ours", "deepmind-flax")
    _zarr(folder / "ours", folder / "zarr" / "checkpoint", {"id": "gzip"})
    with tempfile.TemporaryDirectory() as home:
        _zarr(folder / "ours", Path(home), {"id": "zstd", "level": 1})
        store: JSON = {
            "driver": "ocdbt",
            "base": {"driver": "file", "path": f"{folder}/ocdbt/checkpoint/"},
            "config": {"compression": None, "max_inline_value_bytes": 64},
        }
        database: Any = ts.KvStore.open(store).result()
        transaction: Any = ts.Transaction()
        for path in sorted(path for path in Path(home).rglob("*") if path.is_file()):
            key = path.relative_to(home).as_posix()
            database.with_transaction(transaction)[key] = path.read_bytes()
        transaction.commit_sync()


def _zarr(source: Path, folder: Path, compressor: JSON) -> None:
    """A folder for every array, in two chunks where it has more than one axis."""
    import tensorstore as ts

    tensors = open_source(source)
    for name, shape in tensors.shapes.items():
        chunks = [-(-shape[0] // 2), *shape[1:]] if len(shape) > 1 else list(shape)
        metadata = {"compressor": compressor, "shape": list(shape), "chunks": chunks}
        spec: JSON = {
            "driver": "zarr",
            "kvstore": {"driver": "file", "path": f"{folder}/{name}/"},
            "metadata": metadata | {"dtype": "<f4"},
            "create": True,
        }
        array: Any = ts.open(spec).result()
        array.write(tensors.get(name).numpy()).result()


def main() -> None:
    """Writes orbax.zip beside this file."""
    with tempfile.TemporaryDirectory() as home:
        make(Path(home))
        target = Path(__file__).with_name("orbax.zip")
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(path for path in Path(home).rglob("*") if path.is_file()):
                if path.name != "README.md":
                    info = zipfile.ZipInfo(path.relative_to(home).as_posix())
                    archive.writestr(info, path.read_bytes(), zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    main()

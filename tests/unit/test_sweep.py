"""What a resume looks at in a folder of many parts."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

from catalog.results.commit import sweep_parts
from catalog.results.marker import ShardMarker
from catalog.results.output import RunOutput
from catalog.results.tally import Tally
from storage.object_store import ObjectInfo, ObjectStore


@dataclass
class Folder:
    """An ObjectStore in memory, as far as a sweep asks one."""

    objects: dict[str, bytes]
    read: list[str] = field(default_factory=list)

    def iter_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        keys = [key for key in sorted(self.objects) if key.startswith(prefix)]
        return (ObjectInfo(key, 0, "", None, 0.0) for key in keys)

    def get(self, key: str) -> bytes:
        self.read.append(key)
        return self.objects[key]

    def delete(self, key: str) -> None:
        del self.objects[key]


def test_a_sweep_of_twenty_thousand_shards_reads_the_markers_in_doubt_only() -> None:
    folder = Folder({})
    output = RunOutput(cast(ObjectStore, folder), "bucket", "runs/one", "run_1")
    for shard in range(20_000):
        folder.objects |= {output.part_key(shard): b"", output.marker_key(shard): b"{}"}
    new = output.part_key(7, 1)
    marker = ShardMarker(
        run_id="run_1",
        shard=7,
        round=1,
        first_row=0,
        part_key=new,
        part_bytes=0,
        sha256="",
        tally=Tally(),
    )
    folder.objects |= {new: b"", output.marker_key(7, 1): marker.to_json()}
    sweep_parts(output, "sha256:feed")
    assert folder.read == [output.marker_key(7, 1)]
    assert new in folder.objects
    assert output.part_key(7) not in folder.objects
    assert len(folder.objects) == 40_001

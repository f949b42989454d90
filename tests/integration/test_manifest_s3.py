"""Manifests in a real S3 server: read from any bucket, pinned once per run, read by shards."""

import io
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog.errors import ManifestChanged, ManifestNotFound, ManifestRefused, PinDamaged
from catalog.manifest import BadRow, PinnedManifest, ProblemCode, Row, open_source, pin
from catalog.manifest.pinned import pin_key
from catalog.manifest.pinning import adopted, is_outdated
from catalog.manifest.source import Source, canonical
from catalog.manifest.write import MAX_SHARD_ROWS
from storage.errors import StoreUnavailable
from storage.object_file import ObjectFile
from storage.object_store import ObjectStore, ObjectStoreConfig, S3ObjectStore
from tests.manifests import all_rows

RUN = "runs/spring"
CSV = (
    b"sku,image_uri,seed,colour\nA,a.jpg,1,red\nB,/b.jpg,x,\nA,c.jpg,,\nD,s3://other/d.jpg,4,blue\n"
)


@pytest.fixture
def objects(s3: ObjectStoreConfig) -> S3ObjectStore:
    return S3ObjectStore(s3)


@pytest.fixture
def source_at(s3: ObjectStoreConfig) -> Callable[[str], Source]:
    def bucket(name: str) -> ObjectStore:
        return S3ObjectStore(s3.model_copy(update={"bucket": name}))

    return lambda key: open_source(f"s3://{s3.bucket}/{key}", bucket)


@pytest.fixture
def source(objects: S3ObjectStore, source_at: Callable[[str], Source]) -> Source:
    objects.put("in/shop.csv", CSV, "text/csv")
    return source_at("in/shop.csv")


def keys(objects: S3ObjectStore) -> list[str]:
    return [found.key for found in objects.iter_objects(f"{RUN}/")]


def test_a_manifest_is_pinned_and_read_by_shards(
    objects: S3ObjectStore, s3: ObjectStoreConfig, source: Source, tmp_path: Path
) -> None:
    told: list[int] = []
    pinned = pin(source, objects, RUN, shard_rows=3, temp=tmp_path, progress=told.append)
    objects.delete("in/shop.csv")
    again = PinnedManifest.open(objects, RUN)
    assert again == pinned
    assert (pinned.rows, len(pinned.shards), told) == (4, 2, [4])
    assert pinned.columns == ("sku", "image_uri", "seed")
    assert pinned.extra_fields == (pa.field("colour", pa.string()),)
    assert pinned.problems == {ProblemCode.BAD_SEED: 1, ProblemCode.DUPLICATE_SKU: 1}
    rows = all_rows(pinned)
    assert [type(row) for row in rows] == [Row, BadRow, BadRow, Row]
    first, last = rows[0], rows[3]
    assert isinstance(first, Row)
    assert isinstance(last, Row)
    assert (first.image_uri, first.extra) == (f"s3://{s3.bucket}/in/a.jpg", {"colour": "red"})
    assert (last.index, last.image_uri) == (3, "s3://other/d.jpg")
    assert list(tmp_path.iterdir()) == []


def test_the_same_manifest_again_adopts_the_pin(
    objects: S3ObjectStore, source: Source, tmp_path: Path
) -> None:
    pinned = pin(source, objects, RUN, shard_rows=3, temp=tmp_path)
    before = list(objects.iter_objects(RUN))
    told: list[int] = []
    assert pin(source, objects, RUN, shard_rows=3, temp=tmp_path, progress=told.append) == pinned
    assert told == []
    assert list(objects.iter_objects(RUN)) == before


def test_a_run_that_an_earlier_release_pinned_goes_on(
    objects: S3ObjectStore, source: Source, tmp_path: Path
) -> None:
    """Its row groups were the shards, and it did not say so."""
    pinned = pin(source, objects, RUN, shard_rows=3, temp=tmp_path)
    rows = all_rows(pinned)
    described = json.loads(objects.get(pin_key(RUN)))
    assert described.pop("group_rows") == 9999
    path = tmp_path / "earlier.parquet"
    table = pq.read_table(io.BytesIO(objects.get(pinned.pin.key)))
    pq.write_table(table, path, row_group_size=3)
    objects.put_file(pinned.pin.key, path, "application/vnd.apache.parquet")
    described["size_bytes"] = path.stat().st_size
    objects.put(pin_key(RUN), json.dumps(described).encode(), "application/json")
    again = pin(source, objects, RUN, shard_rows=3, temp=tmp_path)
    assert again.pin.group_rows == 3
    assert all_rows(again) == rows


def test_a_run_keeps_to_its_manifest(
    objects: S3ObjectStore,
    source: Source,
    source_at: Callable[[str], Source],
    tmp_path: Path,
) -> None:
    pinned = pin(source, objects, RUN, shard_rows=3, temp=tmp_path)
    with pytest.raises(ManifestChanged, match="shards of 3 rows, not 4"):
        pin(source, objects, RUN, shard_rows=4, temp=tmp_path)
    objects.put("in/other.csv", CSV, "text/csv")
    with pytest.raises(ManifestChanged, match=r"pinned to .*in/shop\.csv"):
        pin(source_at("in/other.csv"), objects, RUN, shard_rows=3, temp=tmp_path)
    assert not is_outdated(pinned.pin, source)
    objects.put("in/shop.csv", CSV.replace(b"red", b"new"), "text/csv")
    assert pin(source, objects, RUN, shard_rows=3, temp=tmp_path) == pinned
    assert is_outdated(pinned.pin, source)
    objects.delete("in/shop.csv")
    assert adopted(objects, RUN, source.uri, shard_rows=3) == pinned


def test_what_another_release_pinned_is_not_read_as_this_ones(
    objects: S3ObjectStore, source: Source, tmp_path: Path
) -> None:
    pinned = pin(source, objects, RUN, shard_rows=3, temp=tmp_path)
    later = pinned.pin.model_copy(update={"format": pinned.pin.format + 1})
    objects.put(pin_key(RUN), later.model_dump_json().encode(), "application/json")
    with pytest.raises(ManifestChanged, match="another release"):
        pin(source, objects, RUN, shard_rows=3, temp=tmp_path)


def test_a_manifest_has_one_name_whether_it_is_there_or_not(tmp_path: Path) -> None:
    (tmp_path / "shop.csv").write_bytes(CSV)
    (tmp_path / "link.csv").symlink_to(tmp_path / "shop.csv")
    for uri in (f"{tmp_path}/x/../shop.csv", f"file://{tmp_path}/shop.csv", f"{tmp_path}/link.csv"):
        opened = open_source(uri, lambda _: pytest.fail("no bucket is meant"))
        assert canonical(uri) == opened.uri == str(tmp_path / "shop.csv")
    assert canonical("s3://b/shop.csv") == "s3://b/shop.csv"


def test_a_manifest_that_changes_while_it_is_read_is_not_pinned(
    objects: S3ObjectStore, source: Source, tmp_path: Path
) -> None:
    def change(rows: int) -> None:
        objects.put("in/shop.csv", CSV + b"E,e.jpg,,\n", "text/csv")

    with pytest.raises(ManifestChanged, match="while it was read"):
        pin(source, objects, RUN, shard_rows=3, temp=tmp_path, progress=change)
    assert keys(objects) == []
    assert list(tmp_path.iterdir()) == []


def test_what_breaks_while_reading_publishes_nothing(
    objects: S3ObjectStore, source: Source, tmp_path: Path
) -> None:
    def stop(rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pin(source, objects, RUN, shard_rows=1, temp=tmp_path, progress=stop)
    assert keys(objects) == []
    assert list(tmp_path.iterdir()) == []


def test_of_eight_drivers_at_once_all_get_one_pin(
    objects: S3ObjectStore, source: Source, tmp_path: Path
) -> None:
    together, pins = threading.Barrier(8), []

    def drive() -> None:
        together.wait()
        pins.append(pin(source, objects, RUN, shard_rows=3, temp=tmp_path))

    drivers = [threading.Thread(target=drive) for _ in range(8)]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    assert len(pins) == 8
    assert all(pinned == pins[0] for pinned in pins)
    assert keys(objects) == sorted([pins[0].pin.key, pin_key(RUN)])


def test_a_driver_that_lost_to_another_manifest_leaves_nothing(
    objects: S3ObjectStore,
    source: Source,
    source_at: Callable[[str], Source],
    tmp_path: Path,
) -> None:
    objects.put("in/other.csv", b"sku,image_uri\nZ,z.jpg\n", "text/csv")

    def be_quicker(rows: int) -> None:
        pin(source_at("in/other.csv"), objects, RUN, shard_rows=3, temp=tmp_path)

    with pytest.raises(ManifestChanged, match=r"pinned to .*in/other\.csv"):
        pin(source, objects, RUN, shard_rows=3, temp=tmp_path, progress=be_quicker)
    standing = PinnedManifest.open(objects, RUN)
    assert standing is not None
    assert keys(objects) == sorted([standing.pin.key, pin_key(RUN)])


def test_damage_is_told(objects: S3ObjectStore, source: Source, tmp_path: Path) -> None:
    assert PinnedManifest.open(objects, RUN) is None
    pinned = pin(source, objects, RUN, shard_rows=3, temp=tmp_path)
    whole = objects.get(pinned.pin.key)
    for damaged, said in (
        (whole[:-1], "bytes, not"),
        (whole[:-4] + b"NOPE", "damaged"),
    ):
        objects.put(pinned.pin.key, damaged, "application/octet-stream")
        with pytest.raises(PinDamaged, match=said):
            PinnedManifest.open(objects, RUN)
    objects.delete(pinned.pin.key)
    with pytest.raises(PinDamaged, match="no object"):
        PinnedManifest.open(objects, RUN)
    objects.put(pin_key(RUN), b"{}", "application/json")
    with pytest.raises(PinDamaged, match=r"manifest\.json"):
        PinnedManifest.open(objects, RUN)


def test_a_folder_in_s3_is_a_manifest(
    objects: S3ObjectStore,
    s3: ObjectStoreConfig,
    source_at: Callable[[str], Source],
    tmp_path: Path,
) -> None:
    for name in ("a.jpg", "more/b.png", "read.me"):
        objects.put(f"photos/{name}", b"x", "image/jpeg")
    objects.put("photos-2/c.jpg", b"x", "image/jpeg")
    pinned = pin(source_at("photos/"), objects, RUN, shard_rows=10, temp=tmp_path)
    found = [(row.sku, row.image_uri) for row in all_rows(pinned) if isinstance(row, Row)]
    at = f"s3://{s3.bucket}/photos"
    assert found == [("a", f"{at}/a.jpg"), ("b", f"{at}/more/b.png")]
    objects.put("photos/d.jpg", b"x", "image/jpeg")
    assert pin(source_at("photos/"), objects, RUN, shard_rows=10, temp=tmp_path) == pinned
    assert is_outdated(pinned.pin, source_at("photos/"))


def test_a_large_parquet_is_read_in_place(
    objects: S3ObjectStore, source_at: Callable[[str], Source], tmp_path: Path
) -> None:
    names = [f"sku-{i * 7919 % 1_000_003:07d}" for i in range(200_000)]
    pq.write_table(pa.table({"sku": names, "image_uri": names}), tmp_path / "m.parquet")
    objects.put_file("in/m.parquet", tmp_path / "m.parquet", "application/octet-stream")
    pinned = pin(source_at("in/m.parquet"), objects, RUN, shard_rows=1000, temp=tmp_path)
    assert len(pinned.shards) == 200
    assert [row.sku for row in pinned.read(pinned.shards[150])] == names[150_000:151_000]


def test_what_is_not_there_or_no_manifest(
    objects: S3ObjectStore, source_at: Callable[[str], Source], tmp_path: Path
) -> None:
    with pytest.raises(ManifestNotFound):
        pin(source_at("in/none.csv"), objects, RUN, shard_rows=3, temp=tmp_path)
    with pytest.raises(ManifestRefused, match="holds no image"):
        pin(source_at("none/"), objects, RUN, shard_rows=3, temp=tmp_path)
    with pytest.raises(ManifestRefused, match="no bucket"):
        open_source("s3://", lambda _: objects)
    for rows in (0, MAX_SHARD_ROWS + 1):
        with pytest.raises(ValueError, match="a shard has"):
            pin(source_at("in/none.csv"), objects, RUN, shard_rows=rows, temp=tmp_path)
    assert keys(objects) == []


class Failing(S3ObjectStore):
    """Its server stops answering after some ranges."""

    ranges: int

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        if not self.ranges:
            raise StoreUnavailable(key)
        self.ranges -= 1
        return super().get_range(key, start, stop)


@pytest.mark.parametrize(("name", "ranges"), [("m.parquet", 3), ("m.csv", 1)])
def test_an_outage_is_told_as_one_and_not_as_a_bad_manifest(
    s3: ObjectStoreConfig, tmp_path: Path, name: str, ranges: int
) -> None:
    names = [f"{i * 7919 % 10_000_019:032d}" for i in range(200_000)]
    path = tmp_path / name
    if name == "m.parquet":
        table = pa.table({"sku": names, "image_uri": names})
        pq.write_table(table, path, compression="none", use_dictionary=False)
    else:
        path.write_text("sku,image_uri\n" + "".join(f"{n},{n}\n" for n in names))
    objects = Failing(s3)
    objects.ranges = ranges
    objects.put_file(name, path, "application/octet-stream")
    path.unlink()
    with pytest.raises(StoreUnavailable):
        pin(
            open_source(f"s3://{s3.bucket}/{name}", lambda _: objects),
            objects,
            RUN,
            shard_rows=1000,
            temp=tmp_path,
        )
    assert list(tmp_path.iterdir()) == []


def test_an_object_as_a_file(objects: S3ObjectStore) -> None:
    objects.put("letters", b"abcdefgh", "text/plain")
    file = ObjectFile(objects, "letters")
    assert (file.read(3), file.tell(), file.read()) == (b"abc", 3, b"defgh")
    assert file.read() == b""
    assert (file.seek(-2, 2), file.read(9), file.seek(100), file.read(1)) == (6, b"gh", 100, b"")
    with pytest.raises(ValueError, match="before the start"):
        file.seek(-1)

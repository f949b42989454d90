"""A product list whose photos were added beside it, as OpenAI's batch lines over uploaded files:
the service reads manifests' photos from addresses only, and a person's folder has none."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

_BODY = (
    "prompt",
    "negative_prompt",
    "title",
    "category",
    "preset",
    "seconds",
    "seed",
    "n",
    "camera_motion",
    "motion_strength",
)
"""Columns that a line's body has a field for; all others become its metadata."""


class ListUnusable(Exception):
    """`reason` names its words in words.yaml, `names` are what it is about."""

    retryable = False

    def __init__(self, reason: str, names: Sequence[str] = ()):
        super().__init__(reason, names)
        self.reason, self.names = reason, tuple(names)


@dataclass(frozen=True, slots=True)
class ProductList:
    """The rows of a CSV, in order."""

    rows: tuple[Mapping[str, str], ...]

    @classmethod
    def read(cls, name: str, data: bytes) -> "ProductList":
        """Raises ListUnusable."""
        if not name.lower().endswith(".csv"):
            raise ListUnusable("catalogue.photos_need_csv")
        try:
            reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig")), strict=True)
            rows = tuple(_filled(row) for row in reader)
        except UnicodeDecodeError:
            raise ListUnusable("catalogue.not_utf8") from None
        except csv.Error as e:
            raise ListUnusable("catalogue.not_csv", [str(e)]) from None
        lacking = {"sku", "image_uri"} - set(reader.fieldnames or ())
        if lacking:
            raise ListUnusable("catalogue.no_column", sorted(lacking))
        return cls(rows)

    def photos(self, added: Sequence[str]) -> list[str]:
        """Those of the added ones that rows name, each once. Raises ListUnusable where a photo is
        neither among them nor at an https address."""
        named = {_photo(row) for row in self.rows if _photo(row)}
        absent = {name for name in named - set(added) if not name.startswith("https://")}
        if absent:
            raise ListUnusable("catalogue.photos_absent", sorted(absent))
        return sorted(named & set(added))

    def requests(self, file_ids: Mapping[str, str]) -> bytes:
        """A line each. `file_ids`: of the uploaded photos, by name."""
        return "\n".join(json.dumps(_request(row, file_ids)) for row in self.rows).encode()


def _filled(row: Mapping[str | None, Any]) -> Mapping[str, str]:
    """Cells that hold something. A row of another width than the header is refused: nobody knows
    which cell is which."""
    if None in row or None in row.values():
        raise csv.Error(f"{len(row)} cells in the row of {row.get('sku')!r}")
    return {str(name): text.strip() for name, text in row.items() if text.strip()}


def _photo(row: Mapping[str, str]) -> str:
    """As added photos are called: by the last part of the name that the row gives."""
    uri = row.get("image_uri", "")
    return uri if uri.startswith("https://") else PurePath(uri.replace("\\", "/")).name


def _request(row: Mapping[str, str], file_ids: Mapping[str, str]) -> dict[str, Any]:
    photo = _photo(row)
    reference = {"file_id": file_ids[photo]} if photo in file_ids else {"image_url": photo}
    body: dict[str, Any] = {name: row[name] for name in _BODY if name in row}
    others = {k: v for k, v in row.items() if k not in (*_BODY, "sku", "image_uri")}
    if others:
        body["metadata"] = others
    whole = {"custom_id": row.get("sku", ""), "method": "POST", "url": "/v1/videos"}
    return {**whole, "body": {**body, "input_reference": reference}}

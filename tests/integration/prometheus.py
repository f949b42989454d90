"""What tests ask a Prometheus of their own."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.prometheus import scraping


@dataclass(frozen=True, slots=True)
class Prometheus:
    url: str

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Series with their labels and value now. Raises httpx2.HTTPStatusError for bad PromQL."""
        answer = httpx2.post(f"{self.url}/api/v1/query", data={"query": expr})
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    def value(self, expr: str) -> float:
        (series,) = self.query(expr)
        return float(series["value"][1])

    def get(self, path: str) -> Any:
        return httpx2.get(f"{self.url}/api/v1/{path}").raise_for_status().json()["data"]


@contextmanager
def prometheus(folder: Path, targets_file: Path) -> Iterator[Prometheus]:
    """Scrapes every second what stands in `targets_file`."""
    with scraping(folder, targets_file) as url:
        yield Prometheus(url)

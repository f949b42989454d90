"""The table of photos that a run works through: read, checked, and pinned so that it stays."""

from catalog.manifest.pinned import PinnedManifest as PinnedManifest
from catalog.manifest.pinned import Shard as Shard
from catalog.manifest.pinning import check as check
from catalog.manifest.pinning import pin as pin
from catalog.manifest.rows import BadRow as BadRow
from catalog.manifest.rows import ProblemCode as ProblemCode
from catalog.manifest.rows import Row as Row
from catalog.manifest.rows import RowProblem as RowProblem
from catalog.manifest.source import open_source as open_source

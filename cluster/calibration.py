"""Where measured rates of the tiers are kept: calibration/<tier>.json in the object store."""

import logging
from collections.abc import Iterable

from cluster.cost import Calibration
from cluster.tiers import TierConfig
from storage import keys
from storage.errors import ObjectNotFound
from storage.object_store import ObjectStore

log = logging.getLogger(__name__)


def load_calibrations(store: ObjectStore, tiers: Iterable[TierConfig]) -> dict[str, Calibration]:
    """By tier name; a tier that was never measured is left out, and so is what cannot be read."""
    found = {}
    for tier in tiers:
        try:
            found[tier.name] = Calibration.from_json(store.get(keys.calibration_key(tier.name)))
        except ObjectNotFound:
            continue
        except ValueError as e:
            log.warning("tier %s goes by its configuration: %s", tier.name, e)
    return found


def save_calibration(store: ObjectStore, calibration: Calibration) -> None:
    """It counts from the next start of the application on."""
    store.put(keys.calibration_key(calibration.tier), calibration.to_json(), "application/json")

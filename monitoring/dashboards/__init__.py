"""Every dashboard, in the order in which a person on call opens them."""

from monitoring.dashboards.capacity import CAPACITY
from monitoring.dashboards.catalogue import CATALOGUE
from monitoring.dashboards.cost import COST
from monitoring.dashboards.gpu import GPU
from monitoring.dashboards.overview import OVERVIEW
from monitoring.dashboards.panel import Dashboard
from monitoring.dashboards.pipeline import PIPELINE
from monitoring.dashboards.storage_ray import STORAGE_RAY

DASHBOARDS: tuple[Dashboard, ...] = (
    OVERVIEW,
    PIPELINE,
    CAPACITY,
    GPU,
    COST,
    CATALOGUE,
    STORAGE_RAY,
)

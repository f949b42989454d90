"""The application with a Dispatcher that says by which rates it started, in <data>/rates.json."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.serve import Application
from sqlalchemy import make_url

import serve.app
from cluster.cost import CostModel
from cluster.tiers import TierConfig
from deployments.dispatcher import Dispatcher, DispatcherConfig
from storage.job_store import JobStoreConfig


class RatedDispatcher(Dispatcher):
    async def __init__(  # type: ignore[misc]
        self,
        config: DispatcherConfig,
        jobs: JobStoreConfig,
        tiers: Sequence[TierConfig],
        cost: CostModel,
        *rest: Any,
    ):
        rates = {t.name: cost.tflops(t.name) for t in tiers if t.denoises}
        Path(str(make_url(jobs.url).database)).with_name("rates.json").write_text(json.dumps(rates))
        await super().__init__(config, jobs, tiers, cost, *rest)


def build_app(args: Mapping[str, Any]) -> Application:
    vars(serve.app)["Dispatcher"] = RatedDispatcher
    return serve.app.build_app(args)

"""The same API without Serve: uvicorn in one process, over the stores of the running cluster.

`python -m benchmarks.load.bare CONFIG PORT`; where the stores are stands in the environment.
"""

import sys
from pathlib import Path

import uvicorn

from benchmarks.load.probe import with_probe
from cluster.cost import CostModel
from cluster.ladder import Floor
from diffusion.memory import Architecture
from diffusion.model_folder import ModelCard, ModelFolder
from serve.api import DispatcherLine, open_api
from serve.config import load
from serve.http_api import create_app
from serve.services.admission import Admission
from video.photo_pool import PhotoPool


async def _none_broken() -> list[str]:
    return []


def main(config: str, port: str) -> None:
    app = load(Path(config)).app
    folder = ModelFolder.open(app.model)
    card = ModelCard.of(app.model, folder, folder.digests())
    standard = app.presets["standard"]
    admission = Admission(
        CostModel(Architecture.of(folder), app.tiers, app.model, {}),
        Floor(standard.area_px, standard.num_frames, card.size_multiple),
    )
    line = DispatcherLine(wake=lambda: None, stop=lambda _: None, broken=_none_broken)
    with PhotoPool(app.limits.photo_pool, app.limits.photo) as photos:
        api = open_api(app, card, admission, line, photos)
        asgi = with_probe(create_app(api), api)
        uvicorn.run(asgi, host="127.0.0.1", port=int(port), log_level="warning", access_log=False)


if __name__ == "__main__":
    main(*sys.argv[1:])

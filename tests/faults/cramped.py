"""The application with a VideoEncoder whose temporary files go to <data>/temp."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.serve import Application
from sqlalchemy import make_url

import serve.app
from deployments.video_encoder import VideoEncoder
from serve.config import parse


def build_app(args: Mapping[str, Any]) -> Application:
    jobs = parse(args, "args").job_store
    assert jobs is not None
    temp = str(Path(str(make_url(jobs.url).database)).with_name("temp"))

    class CrampedVideoEncoder(VideoEncoder):
        def __init__(self, *rest: Any):
            tempfile.tempdir = temp
            super().__init__(*rest)

    vars(serve.app)["VideoEncoder"] = CrampedVideoEncoder
    return serve.app.build_app(args)

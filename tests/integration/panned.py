"""The application with a virtual camera that knows pans only."""

from collections.abc import Mapping
from typing import Any

from ray.serve import Application

import serve.app
from tests.warp import pan


def build_app(args: Mapping[str, Any]) -> Application:
    return serve.app.compose(args, pan)

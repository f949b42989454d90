"""For test_exposure: an application as small as can be whose builder asks `require_closed`, and a
process that deploys it on a Ray of its own.

`python -m tests.integration.exposed DATA HOST PORT AUTH...` prints, for each AUTH (true or false),
a line of JSON: the application's status and message.
"""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.local import prepare_environment


def build_app(args: Mapping[str, Any]) -> Any:
    from ray import serve

    from cluster.exposure import require_closed

    require_closed(args["auth_enabled"])
    return serve.deployment(Greeter).bind()


class Greeter:
    def __call__(self, _: object) -> str:
        return "hello"


def main(data: str, host: str, port: str, *auth: str) -> None:
    prepare_environment(Path(data))
    import ray
    from ray import serve

    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80 << 20, log_to_driver=False)
    serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": int(port)})
    for enabled in auth:
        print(json.dumps(_deploy(enabled == "true")), flush=True)  # noqa: T201
    serve.shutdown()
    ray.shutdown()


def _deploy(auth_enabled: bool) -> tuple[str, str]:
    """As `serve deploy` does: the builder runs in a task of the cluster."""
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ServeDeploySchema

    name = f"auth-{auth_enabled}".lower()
    application = {
        "name": name,
        "route_prefix": f"/{name}",
        "import_path": "tests.integration.exposed:build_app",
        "args": {"auth_enabled": auth_enabled},
    }
    client = _get_global_client()
    client.deploy_apps(ServeDeploySchema.model_validate({"applications": [application]}))
    while True:
        status = client.get_serve_status(name).app_status
        if status.status in ("RUNNING", "DEPLOY_FAILED", "UNHEALTHY"):
            return status.status, status.message
        time.sleep(0.1)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""How the web page is deployed."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

_LEAVE_S = 2.0
"""Of a replica that is replaced. A browser holds streams open for as long as it shows the page, so
there is nothing to wait for; it comes back by itself."""


class WebConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(True, description="false: no page at /ui/, and no deployment for it")
    api_url: str | None = Field(
        None,
        pattern=r"^https?://[^/]+$",
        description="of the HTTP API, as the page calls it; null: the address of Serve's proxy that"
        " the browser's request came in at",
    )
    grafana_url: str | None = Field(
        None, pattern=r"^https?://\S+$", description="that the page's Service view links to"
    )
    max_ongoing_requests: int = Field(
        400, ge=1, description="every open page holds one, and a few while something goes on"
    )
    num_cpus: float = Field(0.1, ge=0)
    labels: dict[str, str] = Field(default_factory=dict, description="node labels to run on")

    def options(self) -> dict[str, Any]:
        """Keyword arguments of `ray.serve.deployment`: always one replica, as Gradio keeps the
        uploads and the pending events of every open page in its process."""
        actor: dict[str, Any] = {"num_cpus": self.num_cpus}
        if self.labels:
            actor["label_selector"] = dict(self.labels)
        return {
            "name": "WebPage",
            "num_replicas": 1,
            "ray_actor_options": actor,
            "max_ongoing_requests": self.max_ongoing_requests,
            "graceful_shutdown_timeout_s": _LEAVE_S,
            "graceful_shutdown_wait_loop_s": 0.2,
        }

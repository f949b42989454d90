"""What the API answers, as metrics: by route template, whatever made the answer."""

import time
from collections.abc import Sequence

from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monitoring import metrics
from serve.errors import ERROR_CODE, SHED

_CREATION = ("POST", "/v1/videos")
_REFUSED = (429, 503)
_NO_ROUTE = "none"
_PROBES = ("/healthz", "/readyz")  # no caller's; and the 503 of one is a right answer
_EXPECTED_ERRORS = ("500", "503")  # shown as 0 from the start; other codes with the first of them


class CountAnswers:
    """The outermost of the middleware. A request counts when its answer begins: one that nobody
    waits for any more does not."""

    def __init__(self, app: ASGIApp, routes: Sequence[Route]):
        self._app, self._routes = app, routes
        for route in routes:
            if route.path in _PROBES:
                continue
            success = str(getattr(route, "status_code", None) or 200)
            for shed, codes in (("no", (success, *_EXPECTED_ERRORS)), ("yes", ("503",))):
                metrics.begin(
                    metrics.HTTP_REQUESTS,
                    route=[route.path],
                    method=(route.methods or set()) - {"HEAD"},
                    code=codes,
                    shed=[shed],
                )
        metrics.begin(metrics.JOBS_CREATED, metrics.JOBS_REFUSED)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        begun = time.perf_counter()

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._count(scope, message["status"], time.perf_counter() - begun)
            await send(message)

        return await self._app(scope, receive, send_counted)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route, method = self._template(scope["path"]), scope["method"]
        if route in _PROBES:
            return
        if method not in metrics.METHODS:
            method = metrics.OTHER_METHOD
        labels = {"route": route, "method": method}
        shed = "yes" if status == 503 and scope.get(ERROR_CODE) in SHED else "no"
        metrics.HTTP_REQUESTS.inc(tags={**labels, "code": str(status), "shed": shed})
        if not _asks_to_wait(scope):
            metrics.HTTP_SECONDS.observe(seconds, tags=labels)
        if status in _REFUSED and (method, route) == _CREATION:
            metrics.JOBS_REFUSED.inc(tags={"reason": scope[ERROR_CODE]})

    def _template(self, path: str) -> str:
        # Not scope["route"]: what is refused before it is routed has none.
        for route in self._routes:
            if route.path_regex.match(path):
                return route.path
        return _NO_ROUTE


def _asks_to_wait(scope: Scope) -> bool:
    return any(name == b"prefer" and b"wait=" in value for name, value in scope["headers"])

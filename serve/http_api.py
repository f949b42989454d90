"""The HTTP API: the application around the routes, health and the OpenAPI description."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from serve.api import Api
from serve.edge.counting import CountAnswers
from serve.edge.middleware import BodyLimit, HeadAsGet, RequestId
from serve.edge.rate import RateLimitHeaders
from serve.errors import ANSWERED, REQUEST, ApiError, respond, unknown_parameter
from serve.routes.batches import batch_routes
from serve.routes.cluster import cluster_routes
from serve.routes.content import content_routes
from serve.routes.discovery import discovery_routes
from serve.routes.files import file_routes
from serve.routes.health import health_routes
from serve.routes.prompts import prompt_routes
from serve.routes.videos import video_routes
from serve.schemas import ErrorEnvelope, create_body_schema, file_body_schema

_TABLE_THREADS = 16
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_ERRORS: dict[int | str, dict[str, Any]] = {"default": {"model": ErrorEnvelope}}


def create_app(api: Api, echo_request_id: bool = True) -> FastAPI:
    """The ASGI application over `api`."""
    app = _App(
        title="Shopreel",
        version="1",
        description="Every GET route answers HEAD as well: the same headers, no content.",
        docs_url=None,  # Swagger UI loads scripts from an outside host
        redoc_url=None,
        redirect_slashes=False,  # it would send callers where their Host header says
        dependencies=[Depends(_refuse_unknown_query), Depends(_refuse_nul)],
        responses=_ERRORS,
        lifespan=_lifespan,
    )
    config = api.videos.config
    app.add_middleware(
        BodyLimit,
        max_bytes=config.limits.max_body_bytes,
        budget=api.memory,
    )
    app.add_middleware(HeadAsGet)
    app.add_middleware(RateLimitHeaders)
    trust_callers = config.observability.traces.trust_callers
    app.add_middleware(RequestId, echo=echo_request_id, trust_callers=trust_callers)
    for error in ANSWERED:
        app.add_exception_handler(error, respond)
    app.add_exception_handler(HTTPException, _respond_http)
    routers = (
        video_routes(api.videos, api.tenant_of),
        content_routes(api.contents, api.tenant_of),
        file_routes(api.files, api.tenant_of),
        batch_routes(api.batches, api.tenant_of),
        discovery_routes(config, api.videos.model, api.tenant_of),
        prompt_routes(config, api.tenant_of),
        cluster_routes(api.cluster, api.tenant_of),
        health_routes(api.readiness),
    )
    routes = [*app.routes, *(route for router in routers for route in router.routes)]
    app.add_middleware(CountAnswers, routes=[r for r in routes if isinstance(r, Route)])
    for router in routers:
        app.include_router(router)
    return app


@asynccontextmanager
async def _lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Threads for the job table. asyncio's own number goes by the CPUs, of which Serve books a
    fraction for us; these wait for a disk or a server."""
    with ThreadPoolExecutor(_TABLE_THREADS, "job-table") as threads:
        asyncio.get_running_loop().set_default_executor(threads)
        yield


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """FastAPI's description, with the schemas of the bodies that we read ourselves."""
        schema = super().openapi()
        for _, components in (create_body_schema(), file_body_schema()):
            schema["components"]["schemas"].update(components)
        return schema


async def _refuse_unknown_query(request: Request) -> None:
    known = {param.alias for param in request.scope["route"].dependant.query_params}
    for name in request.query_params:
        if name not in known:
            raise unknown_parameter(name)


async def _refuse_nul(request: Request) -> None:
    """No text that Postgres keeps has one, so it would not even look."""
    for name, value in (*request.path_params.items(), *request.query_params.multi_items()):
        if "\x00" in value:
            message = f"{name} holds a NUL character"
            raise ApiError(400, REQUEST, "invalid_parameter", message, name)


async def _respond_http(request: Request, error: Exception) -> JSONResponse:
    """Starlette's own refusals (no such route, wrong method, bad form) in our envelope."""
    assert isinstance(error, HTTPException)
    kind = "not_found_error" if error.status_code == 404 else REQUEST
    code = {404: "route_not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
    response = await respond(request, ApiError(error.status_code, kind, code, str(error.detail)))
    response.headers.update(error.headers or {})
    if error.status_code == 405:
        response.headers["Allow"] = ", ".join(_allowed(request))
    return response


def _allowed(request: Request) -> list[str]:
    """The methods of a path. Starlette names those of one route, and a path has several."""
    scope, routes = request.scope, request.app.routes
    methods = [
        method
        for method in _METHODS
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in routes)
    ]
    return ["GET", "HEAD", *methods[1:]] if "GET" in methods else methods  # middleware.HeadAsGet

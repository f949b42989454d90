"""Health for load balancers and people: alive, and able to make a video."""

from fastapi import APIRouter, Response

from serve.schemas import Health, ReadinessReport
from serve.services.readiness import Readiness


def health_routes(readiness: Readiness) -> APIRouter:
    router = APIRouter()

    @router.get("/healthz")
    async def healthz() -> Health:
        return Health()

    @router.get("/readyz", responses={503: {"model": ReadinessReport}})
    async def readyz(response: Response) -> ReadinessReport:
        broken = await readiness.broken()
        response.status_code = 503 if broken else 200
        return ReadinessReport(status="not_ready" if broken else "ready", broken=broken)

    return router

"""`/v1/cluster`: how the service stands, for those who run it and those who wait for it."""

from fastapi import APIRouter, Depends

from serve.edge.auth import Authenticator
from serve.schemas import Cluster
from serve.services.cluster_status import ClusterStatus


def cluster_routes(status: ClusterStatus, tenant_of: Authenticator) -> APIRouter:
    router = APIRouter(dependencies=[Depends(tenant_of)])

    @router.get("/v1/cluster", operation_id="get_cluster")
    async def get_cluster() -> Cluster:
        """What all callers have given the service to do, as counts; never whose it is."""
        return await status.look()

    return router

"""`/v1/prompts:preview`: the prompt of a video before it is made."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from serve.config import AppConfig
from serve.schemas import PromptFields, PromptPreview
from serve.services.create_request import read_json
from serve.services.resolve import prompt_for
from storage.tenants import Tenant


def prompt_routes(config: AppConfig, tenant_of: Callable[..., Any]) -> APIRouter:
    router = APIRouter()
    schema = PromptFields.model_json_schema()

    @router.post(
        "/v1/prompts:preview",
        openapi_extra={
            "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}
        },
        operation_id="preview_prompt",
    )
    async def preview_prompt(
        request: Request, tenant: Annotated[Tenant, Depends(tenant_of)]
    ) -> PromptPreview:
        fields = PromptFields.model_validate(await read_json(request))
        return PromptPreview.of(prompt_for(fields, config), fields.category)

    return router

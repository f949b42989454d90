"""`shopreel prompt`: what a video would be told to show, before it is made."""

import json
from pathlib import Path
from typing import Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from serve.client import Client, ServiceError
from serve.commands import LOCAL_CONFIG


def run_prompt(
    fields: dict[str, str | None],
    url: str | None,
    api_key: str | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """`fields` are those of PromptFields; without `url` nothing but the config file is asked."""
    given = {name: value for name, value in fields.items() if value is not None}
    preview = _preview_here(given, config) if url is None else _preview_at(url, api_key, given)
    if as_json:
        typer.echo(json.dumps(preview, ensure_ascii=False))
        return
    typer.echo(preview["prompt"])
    for warning in preview["warnings"]:
        Console(stderr=True).print(f"[yellow]warning:[/] {escape(warning)}", highlight=False)


def _preview_at(url: str, api_key: str | None, fields: dict[str, str]) -> dict[str, Any]:
    try:
        with Client(url, api_key) as client:
            return client.preview_prompt(fields)
    except ServiceError as e:
        raise _failed(str(e)) from e


def _preview_here(fields: dict[str, str], config: Path | None) -> dict[str, Any]:
    from serve.config import ConfigError, load
    from serve.errors import ApiError, from_validation
    from serve.schemas import PromptFields, PromptPreview
    from serve.services.resolve import prompt_for

    try:
        said = PromptFields.model_validate(fields)
        prompt = prompt_for(said, load(config or LOCAL_CONFIG).app)
    except ConfigError as e:
        raise _failed(str(e)) from e
    except (ValidationError, ApiError) as e:
        refusal = e if isinstance(e, ApiError) else from_validation(e)
        raise _failed(refusal.message) from e
    return PromptPreview.of(prompt, said.category).model_dump()


def _failed(message: str) -> typer.Exit:
    Console(stderr=True).print(f"[red]failed:[/] {escape(message)}", highlight=False)
    return typer.Exit(1)

"""The `Idempotency-Key` of requests that make something."""

from typing import Annotated

from fastapi import Header

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern="^[ -~]*$",
        description="Makes a repeat safe: the same key with the same body answers with what stands"
        " and `Idempotency-Replayed: true`, with another body 409 `idempotency_conflict`.",
    ),
]

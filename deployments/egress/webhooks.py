"""Webhooks as Standard Webhooks has them: who may be told, how it is signed, what an answer means.

Pure; deployments.egress.courier sends them.
"""

import base64
import hashlib
import hmac
import random
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from standardwebhooks import Webhook

from deployments.egress.allow_list import UrlNotUsable, find_target
from deployments.egress.client import EgressConfig, EgressError, Response, UrlNotAllowed
from storage.deliveries import Delivery, Outcome

_MIN_SECRET_BYTES = 24
_GONE = 410
_COME_BACK_LATER = (429, 502, 503, 504)
"""Answers whose Retry-After is heeded."""


class WebhookNotAllowed(UrlNotAllowed):
    code = "webhook_not_allowed"


class WebhookConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    secrets: tuple[SecretStr, ...] = Field(
        (),
        description="newest first; every tenant's own is derived from these. To rotate: put a new"
        " one in front, and take the old one away once all tenants verify with the new one",
    )
    timeout_s: float = Field(15.0, gt=0, description="for an endpoint to answer")
    first_retry_s: float = Field(5.0, gt=0, description="at most; doubles with every try")
    max_retry_s: float = Field(3600.0, gt=0)
    give_up_after_s: float = Field(12 * 3600.0, gt=0, description="from the end of the job")
    poll_s: float = Field(1.0, gt=0)
    max_concurrent: int = Field(128, ge=1)
    max_per_host: int = Field(8, ge=1, description="of these: a slow one holds up only itself")

    @field_validator("secrets")
    @classmethod
    def _long_enough(cls, secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if any(len(secret.get_secret_value().encode()) < _MIN_SECRET_BYTES for secret in secrets):
            raise ValueError(f"a secret must have at least {_MIN_SECRET_BYTES} bytes")
        return secrets


def check_webhook_url(url: str, config: EgressConfig) -> None:
    """Whether a job may name it. No look-up is made here: every try makes its own.
    Raises WebhookNotAllowed."""
    try:
        find_target(url, config.webhook_hosts, config.webhook_schemes)
    except UrlNotUsable as e:
        raise WebhookNotAllowed(str(e)) from None


def webhook_secret(config: WebhookConfig, tenant: str) -> str:
    """What a tenant verifies with. Raises ValueError when no secret is configured."""
    if not config.secrets:
        raise ValueError("webhooks.secrets is empty")
    return _derived(config.secrets[0], tenant)


def signed_headers(config: WebhookConfig, delivery: Delivery, now: float) -> dict[str, str]:
    """One signature per secret, so that receivers may change over at their own time. `now` is in
    Unix seconds; receivers take five minutes either way."""
    sent_at = datetime.fromtimestamp(int(now), UTC)
    signatures = (
        Webhook(_derived(secret, delivery.tenant)).sign(delivery.id, sent_at, delivery.body)
        for secret in config.secrets
    )
    return {
        "content-type": "application/json",
        "webhook-id": delivery.id,
        "webhook-timestamp": str(int(now)),
        "webhook-signature": " ".join(signatures),
    }


def _derived(secret: SecretStr, tenant: str) -> str:
    key = secret.get_secret_value().encode()
    digest = hmac.digest(key, f"webhook:{tenant}".encode(), hashlib.sha256)
    return f"whsec_{base64.b64encode(digest).decode()}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a try came to: the end, or another try in `retry_in_s`."""

    detail: str
    outcome: Outcome | None = None
    retry_in_s: float = 0.0


def judge(
    config: WebhookConfig, delivery: Delivery, result: Response | EgressError, now: float
) -> Verdict:
    """`now` in Unix seconds."""
    wait_s = 0.0
    if isinstance(result, EgressError):
        detail = result.reason
        if not result.retryable:
            return Verdict(detail, Outcome.GIVEN_UP)
    else:
        detail = f"answered {result.status} {result.text}".rstrip()
        if 200 <= result.status < 300:
            return Verdict(detail, Outcome.DELIVERED)
        if result.status == _GONE:
            return Verdict(detail, Outcome.DISABLED)
        if result.status in _COME_BACK_LATER:
            asked_s = _retry_after_s(result.headers.get("retry-after", ""), now)
            wait_s = min(config.max_retry_s, asked_s)
    doubled_s = config.first_retry_s * 2.0 ** min(delivery.tries - 1, 64)
    wait_s = max(wait_s, random.uniform(0, min(config.max_retry_s, doubled_s)))
    if now + wait_s > delivery.created_at + config.give_up_after_s:
        return Verdict(detail, Outcome.GIVEN_UP)
    return Verdict(detail, retry_in_s=wait_s)


def _retry_after_s(value: str, now: float) -> float:
    """RFC 9110: seconds or a date. What is neither asks for nothing."""
    if value.isascii() and value.isdigit():
        return float(value)
    with suppress(ValueError):
        return parsedate_to_datetime(value).timestamp() - now
    return 0.0

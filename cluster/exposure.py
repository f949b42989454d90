"""Whether others than this machine's users can reach the service, and that it is closed then."""

import ipaddress


class Exposed(Exception):
    """The service would listen to everybody, unguarded; says what guards it."""


def is_loopback(host: str) -> bool:
    """A host name is not, `localhost` apart: who knows where it leads."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_closed(auth_enabled: bool) -> None:
    """Raises Exposed where Serve's proxies listen beyond loopback while API keys are off, or Ray's
    own ports want no token. Call it in a process of the cluster, where Serve runs."""
    host = _http_host()
    if host is None or is_loopback(host):
        return
    if not auth_enabled:
        raise Exposed(
            f"Serve listens on {host} and auth.enabled is false: turn API keys on, or set"
            " http_options.host to 127.0.0.1"
        )
    # Whoever reaches Ray's ports can run code; that they are on this host alone is not known here.
    if not _ray_wants_token():
        raise Exposed(
            f"Serve listens on {host} and Ray wants no token: start every node with"
            " RAY_AUTH_MODE=token and the same token, or set http_options.host to 127.0.0.1"
        )


def _http_host() -> str | None:
    """What the proxies were started with, which a config deployed later does not change; None where
    there is no HTTP."""
    from ray.serve._private.constants import RAY_SERVE_ENABLE_HA_PROXY
    from ray.serve.config import ProxyLocation
    from ray.serve.context import _get_global_client

    http = _get_global_client().http_config
    if http.host is None or http.location == ProxyLocation.Disabled:
        return None
    # HAProxy reaches replicas on every node, so Serve opens all interfaces for it.
    return "0.0.0.0" if RAY_SERVE_ENABLE_HA_PROXY else http.host


def _ray_wants_token() -> bool:
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    return bool(is_token_auth_enabled())

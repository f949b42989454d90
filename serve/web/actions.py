"""What the buttons on a video do, and how the page's events behave."""

from typing import Any

from serve.web.api import Api
from serve.web.wishes import again, ids_of

LISTEN = """element.addEventListener('click', (e) => {
  const button = e.target.closest('[data-act]');
  if (!button || (button.dataset.ask && !window.confirm(button.dataset.ask))) return;
  trigger('click', {act: button.dataset.act, of: button.dataset.of});
});"""
"""`js_on_load` of an HTML component whose `click` tells which button it was."""

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""Of events whose answer comes at once. None is offered as an API: the service has one."""

_RATINGS = {"good": 1, "bad": -1}


async def act(api: Api, said: Any) -> str | None:
    """Does what the button says; the id of the video that it has made. Raises Refused."""
    chosen: dict[str, str] = said if isinstance(said, dict) else {}
    ids, name = ids_of(chosen.get("of", "")), chosen.get("act")
    if not ids:
        return None
    (video_id,) = ids[:1]
    if name == "cancel":
        await api.cancel(video_id)
    elif name == "delete":
        await api.delete(video_id)
    elif name in _RATINGS:
        await api.rate(video_id, _RATINGS[name])
    elif name == "again":
        body = again(await api.video(video_id))
        return None if body is None else str((await api.create(body))["id"])
    return None

"""Cancelling a run: a file in its folder, which its driver looks for, wherever it runs."""

from catalog.results.output import RunOutput

_NAME = "cancelled.json"


def ask_to_cancel(output: RunOutput) -> None:
    """It lasts, so that no later driver of the run takes up its work either."""
    output.objects.put(output.key(_NAME), b"{}", "application/json")


def forget_cancelling(output: RunOutput) -> None:
    """For a run that is to go on."""
    output.objects.delete(output.key(_NAME))


def is_cancelled(output: RunOutput) -> bool:
    return output.objects.stat(output.key(_NAME)) is not None

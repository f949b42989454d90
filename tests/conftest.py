"""No test is skipped but for the lack of a GPU, or of other people's schemas: any other skip fails
the run."""

import pytest
from hypothesis import settings

settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


_MAY_SKIP = {"gpu", "shared_data"}


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]
    outcome = yield
    report = outcome.get_result()
    may_skip = not _MAY_SKIP.isdisjoint(item.keywords)
    if report.skipped and not hasattr(report, "wasxfail") and not may_skip:
        report.outcome = "failed"
        allowed = " or ".join(sorted(_MAY_SKIP))
        report.longrepr = f"skipped, and only tests marked {allowed} may be: {report.longrepr}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="gpu: no CUDA device here"))

"""What a one-machine cluster provides itself where the configuration names none: an S3 server, an
SQLite file, a tiny model."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from cluster.embedded_s3 import EmbeddedS3

_TINY = "tiny"


@dataclass(frozen=True, slots=True)
class Own:
    """Which of the parts."""

    object_store: bool
    job_store: bool
    tiny_model: bool
    default_model: str  # with a tiny model: what the written folder no longer tells


class Parts:
    """Started in the data folder, to be ended with `ends`. `settings` name them to the application,
    by the name of the variable less its prefix."""

    def __init__(self, data: Path, own: Own, report: Callable[[str], None], ends: ExitStack):
        # Those who share an SQLite file must meet where that is: on the one node there is.
        sharing = ("API", "DISPATCHER", "HOUSEKEEPER")
        self.settings = {f"STAGES__{stage}__LABELS__ROLE": "head" for stage in sharing}
        self.s3: EmbeddedS3 | None = None
        if own.object_store:
            report("starting the embedded S3 server")
            self.s3 = s3 = EmbeddedS3(data / "s3")
            ends.callback(s3.stop)
            config = s3.start().config
            self.settings |= {
                "OBJECT_STORE__ENDPOINT": config.endpoint,
                "OBJECT_STORE__BUCKET": config.bucket,
                "OBJECT_STORE__ACCESS_KEY": config.access_key,
                "OBJECT_STORE__SECRET_KEY": config.secret_key.get_secret_value(),
            }
        if own.job_store:
            self.settings["JOB_STORE__URL"] = f"sqlite:///{data / 'jobs.sqlite'}"
        if own.tiny_model:
            self.settings["MODEL__SOURCE"] = str(_tiny_model(data / "models" / _TINY, report))
            self.settings["DEFAULT_MODEL"] = own.default_model


def _tiny_model(folder: Path, report: Callable[[str], None]) -> Path:
    if not (folder / "model_index.json").exists():
        from diffusion.tiny import write_tiny_model  # torch, which nobody else here needs

        report("writing the tiny model")
        write_tiny_model(folder)
    return folder

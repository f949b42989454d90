"""TextEncoder: prompt and negative prompt to embeddings, on CPUs, with a bounded cache."""

import asyncio
from functools import lru_cache
from typing import TYPE_CHECKING

from pydantic import Field

from cluster.stage import StageConfig
from deployments.timing import Stopwatch, Timed
from diffusion.model_folder import ModelConfig, ModelFolder
from monitoring import metrics
from monitoring.logs import digest
from monitoring.stages import StageCall, stage

if TYPE_CHECKING:
    from diffusion.state import PromptEmbeds, TextCondition


class TextEncoderConfig(StageConfig):
    cache_entries: int = Field(4096, ge=0, description="prompts; 154 KiB each at full size in fp16")


class TextEncoder:
    def __init__(self, config: TextEncoderConfig, model: ModelConfig, digests: dict[str, str]):
        import torch

        from diffusion.device import PeakMemory, open_device
        from diffusion.text import encode_prompt
        from diffusion.weights import load_text_model

        folder = ModelFolder.open(model)
        folder.verify(digests, "tokenizer", "text_encoder")
        device = open_device(config.torch_device, config.num_gpus, config.threads)
        loaded = load_text_model(
            folder, device, getattr(torch, model.dtype_on(config.torch_device))
        )
        self._memory = PeakMemory(device)
        self._lock = asyncio.Lock()

        @lru_cache(maxsize=config.cache_entries)
        def embed(prompt: str) -> "PromptEmbeds":
            return encode_prompt(loaded, prompt)

        self._embed = embed
        metrics.begin(metrics.PROMPT_CACHE)

    async def encode(
        self, prompt: str, negative_prompt: str, call: StageCall | None = None
    ) -> Timed["TextCondition"]:
        """Embed both prompts. A catalogue repeats them: most come from the cache."""
        with stage("text_encoding", call) as record:
            condition = await self._encode(prompt, negative_prompt)
            record.note(
                seconds=condition.seconds,
                vram_bytes=self._memory.bytes(),
                shapes={"prompt_embeds": condition.value.prompt.embeds.data.shape},
                prompt_sha256=digest(prompt),
            )
            return condition

    async def _encode(self, prompt: str, negative_prompt: str) -> Timed["TextCondition"]:
        from diffusion.state import TextCondition

        watch = Stopwatch()
        async with self._lock:
            with watch.running():
                self._memory.restart()
                before = self._embed.cache_info()
                embeds = await asyncio.to_thread(self._embed, prompt)
                negative = await asyncio.to_thread(self._embed, negative_prompt)
                after = self._embed.cache_info()
        for result, count in (
            ("hit", after.hits - before.hits),
            ("miss", after.misses - before.misses),
        ):
            if count:
                metrics.PROMPT_CACHE.inc(count, tags={"result": result})
        metrics.STAGE_SECONDS.observe(watch.seconds, tags={"stage": "text_encoding"})
        return Timed(TextCondition(embeds, negative), watch.seconds)

    async def cache_info(self) -> dict[str, int | None]:
        """Hits, misses, size and bound of this replica's cache."""
        return self._embed.cache_info()._asdict()

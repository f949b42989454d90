"""Text conditioning: CLIP's penultimate layer with its final norm."""

import torch

from diffusion.state import PromptEmbeds, WireTensor
from diffusion.weights import TextModel


@torch.inference_mode()
def encode_prompt(model: TextModel, prompt: str) -> PromptEmbeds:
    """Embed one prompt, positive or negative: [1, 77, D] in the encoder's dtype.

    What does not fit CLIP's 77 tokens is named in the result's `dropped`.
    """
    tokenizer, encoder = model.tokenizer, model.text_encoder
    tokens = tokenizer(
        [prompt],
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    hidden = encoder(tokens.to(encoder.device), output_hidden_states=True).hidden_states
    # diffusers calls this clip_skip=1: the last layer is computed and not used.
    embeds = encoder.final_layer_norm(hidden[-2])
    return PromptEmbeds(WireTensor.of(embeds), _dropped(model, prompt))


def _dropped(model: TextModel, prompt: str) -> str:
    ids = model.tokenizer(prompt).input_ids[1:-1]  # without the start and end marks
    room = model.tokenizer.model_max_length - 2
    return str(model.tokenizer.decode(ids[room:])) if len(ids) > room else ""

"""A checkpoint that is only described: the published I2VGen-XL, for cost and admission."""

from diffusion.memory import Architecture

ARCHITECTURE = Architecture(
    in_channels=4,
    block_channels=(320, 640, 1280, 1280),
    attends_down=(True, True, True, False),
    attends_up=(False, True, True, True),
    layers_per_block=2,
    head_dim=64,
    context_dim=1024,
    unet_parameters=1_420_469_224,
    vae_channels=(128, 256, 512, 512),
    vae_layers_per_block=2,
    vae_attends=True,
    decoder_parameters=49_490_199,
    latent_scale=8,
    size_multiple=64,
)

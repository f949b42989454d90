"""How the embedded model is made: pictures, a codec in closed form, and the training of the rest.

Run as `python -m diffusion.training` (`make embedded-model`). Nothing here is needed to serve.
"""

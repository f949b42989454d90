"""I2VGen-XL as functions over tensors: load, condition, denoise, decode. Knows no Ray."""

"""Products: presets, categories and prompts; runs over a manifest, their results and reports."""

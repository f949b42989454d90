"""Products: presets today; prompts, manifests and catalogue runs as they land."""

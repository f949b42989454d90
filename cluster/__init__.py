"""The machines: GPU tiers, the one-machine cluster and the checks before a rollout."""

"""The deployments: one file for each that scales by itself, and the parts that they are made of."""

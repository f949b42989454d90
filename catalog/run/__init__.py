"""A catalogue run: rows of a manifest into jobs of the service, and what became of them."""

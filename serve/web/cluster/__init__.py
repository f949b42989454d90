"""Service: whether it can work, what its machines do, what has failed lately."""

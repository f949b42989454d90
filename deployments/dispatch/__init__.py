"""What the Dispatcher is made of: who runs where, an attempt's way, and what its end means."""

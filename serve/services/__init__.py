"""What the API can do: the routes ask these."""

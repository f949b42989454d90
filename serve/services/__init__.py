"""What the API can do, without HTTP: the routes ask these."""

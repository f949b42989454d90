"""Between a caller and the services: who it is, how much it may ask, hold and repeat."""

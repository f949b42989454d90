"""What the videos look like, in figures and in sheets to be looked at."""

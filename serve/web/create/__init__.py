"""Create: photos and wishes in, progress, videos and what can be done with them out."""

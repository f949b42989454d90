"""One measurement per file; each returns its figures as plain JSON values."""

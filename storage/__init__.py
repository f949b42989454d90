"""What outlives a request: jobs in a SQL table, bytes in an S3 bucket."""

"""The whole life of what is stored, at size: a table of a million jobs beside a full bucket."""

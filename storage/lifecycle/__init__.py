"""How long what is stored lives: records, retention, deletion, and the table made again."""

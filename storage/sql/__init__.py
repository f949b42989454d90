"""The job table in SQL: statements on an open connection, and what opens one."""

"""A small photo studio in numpy: shapes as distance fields, area lights, a product per scene."""

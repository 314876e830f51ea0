"""Results as files: JSON to keep, a table to read, a picture to look at."""

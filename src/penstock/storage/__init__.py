"""Where bytes lie: WAL objects, segment objects, and the memory they pass through."""

"""Virtual clusters: their environments, limits, creation and deletion."""

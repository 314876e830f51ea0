"""Virtual clusters: which there are, in which environments, within which limits."""

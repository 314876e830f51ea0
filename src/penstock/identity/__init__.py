"""Who somebody is: credentials, how they are proven, and what is kept of them. What one may do is decided elsewhere."""

"""What the operating system says a load cost, and on what machine."""

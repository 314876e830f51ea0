"""What people type and read: pure functions from text to values and back."""

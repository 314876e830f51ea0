"""What an agent is put together from: each part is built in one place, from what was built before it."""

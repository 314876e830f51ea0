"""Transactions: transactional ids, what their producers may write, and how all of it becomes visible at once."""

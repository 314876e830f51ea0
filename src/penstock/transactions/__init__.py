"""Transactions: transactional ids, what their producers may write, and how everything of one becomes visible at once."""

"""Transactions: transactional ids, fencing, markers, and offsets that become visible with them."""

"""`penstock bench`: a small load test that says what it measured and what it did not."""

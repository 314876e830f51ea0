"""The audit log: who proved who they are, who was refused what, and what was changed, as events in a topic."""

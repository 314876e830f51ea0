"""Authorization: Kafka's ACLs, stored in the database, evaluated in memory, enforced by guards around API handlers."""

"""Who may do what: Kafka's ACLs, kept in the database, decided in memory, enforced around the handlers of APIs."""

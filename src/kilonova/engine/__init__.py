"""Work is a row: operations, run step by step by whoever holds their lease.

The package knows nothing of servers. `model` says what workflows and steps
are, `store` holds the SQL, `run` takes one operation through its steps,
`engine` claims operations, keeps their leases and recovers those of the dead.
"""

"""The conductor: runs operations, talks to agents, keeps what hosts report."""

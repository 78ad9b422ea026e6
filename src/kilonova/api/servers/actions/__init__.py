"""`POST /servers/{id}/action`."""

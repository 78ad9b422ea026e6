"""Pure: (picture of the hosts, request) -> ranked candidates, and why every other host was left out."""

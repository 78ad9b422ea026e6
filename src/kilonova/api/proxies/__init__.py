"""Networks, floating IPs and security groups at Compute's old versions: Networking's own, in the old shapes."""

#!/bin/sh
# What dhcp6c runs when it has an answer (variables are its own; addresses it sets itself).
for server in $new_domain_name_servers; do
  grep -q "nameserver $server\$" /etc/resolv.conf 2>/dev/null || echo "nameserver $server" >> /etc/resolv.conf
done

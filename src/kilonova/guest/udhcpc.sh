#!/bin/sh
# What udhcpc runs when it has a lease (variables are its own).
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
ip -4 addr flush dev $interface
ip addr add $ip/${mask:-24} dev $interface
[ -n "$mtu" ] && ip link set $interface mtu $mtu
if [ -n "$staticroutes" ]; then
  # option 121 replaces the router option
  set -- $staticroutes
  while [ $# -ge 2 ]; do
    if [ "$2" = 0.0.0.0 ]; then ip route replace $1 dev $interface; else ip route replace $1 via $2 dev $interface onlink; fi
    shift 2
  done
elif [ -n "$router" ]; then
  ip route replace default via ${router%% *} dev $interface
fi
for server in $dns; do
  grep -q "nameserver $server\$" /etc/resolv.conf 2>/dev/null || echo "nameserver $server" >> /etc/resolv.conf
done

#!/bin/busybox sh
# PID 1 of the tiny guest. The whole system lives in the initramfs; the disk's
# second partition (label `data`) is the only thing that survives a reboot.
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root TERM=linux
/bin/busybox --install -s /bin 2>/dev/null
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /run /tmp /mnt /data /www /var/log /var/run /root/.ssh /etc/dropbear
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /run
ln -sf /proc/self/fd /dev/fd
MD=/run/md
mkdir -p $MD

say() { # one line to whoever watches: serial port and screen
  for console in /dev/ttyS0 /dev/tty0; do
    [ -c $console ] && printf '%s\r\n' "$*" > $console 2>/dev/null
  done
}

value() { # the value of one flattened JSON path, e.g. `value meta links.0.id`
  sed -n "s/^$2	//p" /run/$1.flat 2>/dev/null | head -n 1
}

flatten() { # $MD/<1>_data.json -> /run/<1>.flat, one `path<TAB>value` a line
  [ -s $MD/$1_data.json ] && awk -f /etc/flatten.awk $MD/$1_data.json > /run/$1.flat 2>/dev/null
}

address() { ip -4 -o addr show dev $1 2>/dev/null | sed -n 's/.*inet \([0-9.]*\).*/\1/p' | head -n 1; }

modprobe -a virtio_pci virtio_blk virtio_net virtio_balloon virtio-rng virtio_input button evdev \
  ata_piix virtio_scsi sd_mod sr_mod isofs 2>/dev/null
ip link set lo up

# -- ACPI power button: a read of its event device blocks until it is pressed
for input in /sys/class/input/input*; do
  [ "$(cat $input/name 2>/dev/null)" = "Power Button" ] || continue
  for event in $input/event*; do
    ( dd if=/dev/input/${event##*/} bs=24 count=1 of=/dev/null 2>/dev/null
      say "power button: shutting down"
      umount /data 2>/dev/null; sync; poweroff -f ) &
    break
  done
done

# -- what survives: a boot counter and the SSH host keys
BOOTS=-
DATA=$(findfs LABEL=data 2>/dev/null)
if [ -n "$DATA" ] && mount -t ext4 -o sync "$DATA" /data 2>/dev/null; then
  BOOTS=$(( $(cat /data/boots 2>/dev/null || echo 0) + 1 ))
  echo $BOOTS > /data/boots
  mkdir -p /data/dropbear && rm -rf /etc/dropbear && ln -s /data/dropbear /etc/dropbear
  sync
fi

# -- config drive
SOURCE=none
tries=0
while [ $tries -lt 10 ]; do
  DRIVE=$(findfs LABEL=config-2 2>/dev/null || findfs LABEL=CONFIG-2 2>/dev/null) && break
  # no CD drive after a moment: there is none
  [ $tries -ge 2 ] && [ ! -e /sys/block/sr0 ] && break
  tries=$((tries + 1)); usleep 200000
done
if [ -n "$DRIVE" ]; then
  [ "${DRIVE#/dev/sr}" = "$DRIVE" ] && modprobe -a vfat nls_cp437 nls_ascii nls_utf8 2>/dev/null
  if mount -r -t iso9660 $DRIVE /mnt 2>/dev/null || mount -r -t vfat $DRIVE /mnt 2>/dev/null; then
    cp -r /mnt/openstack/latest/. $MD/ 2>/dev/null && SOURCE=configdrive
    [ -d /mnt/openstack/content ] && cp -r /mnt/openstack/content $MD/content
    umount /mnt
  fi
fi
flatten meta; flatten network

# -- network: as network_data.json says, DHCP where it says nothing
dhcp() { udhcpc -i $1 -n -q -O staticroutes -O mtu -t ${2:-6} -T 2 -A 1 -s /etc/udhcpc.sh >/dev/null 2>&1; }

ask6() { # interface stateful|stateless: what dhcp6c is to do there
  mkdir -p /run/dhcp6c.d
  what="send ia-na ${1#eth}"
  [ $2 = stateless ] && what="information-only"
  printf 'interface %s { %s; request domain-name-servers; script "/etc/dhcp6c.sh"; };\nid-assoc na %s { };\n' \
    $1 "$what" ${1#eth} > /run/dhcp6c.d/$1
}

dhcp6() { # one client for all interfaces, in the background: routers are heard after a while
  [ -d /run/dhcp6c.d ] || return
  [ -f /run/dhcp6c.pid ] && kill $(cat /run/dhcp6c.pid) && sleep 2
  mkdir -p /var/lib/dhcpv6
  cat /run/dhcp6c.d/* > /run/dhcp6c.conf
  (cd /run/dhcp6c.d && dhcp6c -c /run/dhcp6c.conf -p /run/dhcp6c.pid *) >/dev/null 2>&1
}

configure() { # interface [tries]
  ip link set $1 up
  mac=$(cat /sys/class/net/$1/address)
  link=$(sed -n "s/^links\.\([0-9]*\)\.ethernet_mac_address	$mac\$/\1/p" /run/network.flat 2>/dev/null | head -n 1)
  [ -n "$link" ] || { dhcp $1 $2; return; }
  mtu=$(value network links.$link.mtu)
  case $mtu in [1-9]*) ip link set $1 mtu $mtu;; esac
  id=$(value network links.$link.id)
  wants_dhcp=
  for net in $(sed -n "s/^networks\.\([0-9]*\)\.link	$id\$/\1/p" /run/network.flat); do
    case $(value network networks.$net.type) in
      ipv4_dhcp) wants_dhcp=y;;
      ipv6_dhcpv6-*) kind=$(value network networks.$net.type); ask6 $1 ${kind##*-};;
      ipv4) ip addr add $(value network networks.$net.ip_address)/$(value network networks.$net.netmask) dev $1
        for route in 0 1 2 3 4 5 6 7; do
          to=$(value network networks.$net.routes.$route.network)
          [ -n "$to" ] && ip route replace $to/$(value network networks.$net.routes.$route.netmask) \
            via $(value network networks.$net.routes.$route.gateway) dev $1 onlink
        done;;
    esac
  done
  [ -n "$wants_dhcp" ] && dhcp $1 $2
  for server in $(sed -n 's/^services\.[0-9]*\.address	//p' /run/network.flat); do
    grep -q "nameserver $server\$" /etc/resolv.conf 2>/dev/null || echo "nameserver $server" >> /etc/resolv.conf
  done
}

for nic in /sys/class/net/eth*; do [ -e $nic ] && configure ${nic##*/}; done
dhcp6

# -- metadata service, where there is no config drive
if [ $SOURCE = none ] && [ -n "$(address eth0)" ]; then
  for file in meta_data.json user_data network_data.json; do
    for try in 1 2 3; do
      # `wget -T` of this busybox crashes
      timeout 6 wget -q -O $MD/$file http://169.254.169.254/openstack/latest/$file 2>/run/wget.err && break
      grep -q 404 /run/wget.err && break
      sleep 1
    done
    [ -s $MD/$file ] || rm -f $MD/$file
  done
  [ -s $MD/meta_data.json ] && SOURCE=metadata
  flatten meta
fi

# -- name, keys, password, injected files
NAME=$(value meta hostname); NAME=${NAME%%.*}
hostname "${NAME:-guest}"
echo "127.0.0.1 localhost $(hostname)" > /etc/hosts
sed -n 's/^public_keys\.[^	]*	//p' /run/meta.flat 2>/dev/null > /root/.ssh/authorized_keys
chmod 700 /root /root/.ssh; chmod 600 /root/.ssh/authorized_keys
PASSWORD=$(value meta admin_pass)
# without an admin password the console takes `kilonova` and SSH takes keys only
echo "root:$(mkpasswd -m sha512 "${PASSWORD:-kilonova}"):19000:0:99999:7:::" > /etc/shadow
chmod 600 /etc/shadow
for item in $(sed -n 's/^files\.\([0-9]*\)\.path	.*/\1/p' /run/meta.flat 2>/dev/null); do
  path=$(value meta files.$item.path); content=$(value meta files.$item.content_path)
  mkdir -p "$(dirname "$path")" && cp "$MD/content/${content##*/}" "$path" && say "file $path"
done

# -- services
echo "$(hostname) boots=$BOOTS src=$SOURCE uuid=$(value meta uuid)" > /www/index.html
httpd -p 80 -h /www
if [ -n "$PASSWORD" ]; then dropbear -R -p 22; else dropbear -R -s -p 22; fi 2>/dev/null
label() { # what a disk holds: an ext4 label, `swap`, or nothing (this busybox has no blkid)
  [ "$(dd if=$1 bs=1 skip=4086 count=10 2>/dev/null)" = SWAPSPACE2 ] && { echo swap; return; }
  dd if=$1 bs=1 skip=1144 count=16 2>/dev/null | tr -cd 'A-Za-z0-9_-'
}
for disk in /sys/block/vd* /sys/block/sd*; do
  [ -e $disk ] && say "disk ${disk##*/} $(( $(cat $disk/size) / 2048 ))MiB $(label /dev/${disk##*/})"
done
IP=$(address eth0)
say "guest ready $(hostname) ${IP:--} src=$SOURCE boots=$BOOTS uptime=$(cut -d' ' -f1 /proc/uptime)"
for tty in ttyS0 tty1; do
  ( while :; do getty -L 115200 $tty vt100; sleep 1; done ) &
done

if [ "$(head -c 2 $MD/user_data 2>/dev/null)" = '#!' ]; then
  chmod +x $MD/user_data
  $MD/user_data > /run/user_data.log 2>&1
  result=$?
  head -n 100 /run/user_data.log | while IFS= read -r line; do say "user_data: $line"; done
  say "user_data done rc=$result"
fi

# -- say when NICs and disks come and go. Only builtins in the loop: an idle guest costs nearly nothing
mkfifo /run/never
exec 9<>/run/never
devices() {
  NICS=" "; DISKS=" "
  for d in /sys/class/net/*; do NICS="$NICS${d##*/} "; done
  for d in /sys/block/vd* /sys/block/sd* /sys/block/sr*; do [ -e $d ] && DISKS="$DISKS${d##*/} "; done
}
devices; KNOWN_NICS=$NICS; KNOWN_DISKS=$DISKS
while :; do
  read -r -t 1 _ <&9
  devices
  [ "$NICS$DISKS" = "$KNOWN_NICS$KNOWN_DISKS" ] && continue
  for x in $NICS; do case "$KNOWN_NICS" in *" $x "*) ;; *)
    configure $x 3; say "nic added $x $(cat /sys/class/net/$x/address) $(address $x)";; esac; done
  for x in $KNOWN_NICS; do case "$NICS" in *" $x "*) ;; *) say "nic removed $x";; esac; done
  for x in $DISKS; do case "$KNOWN_DISKS" in *" $x "*) ;; *)
    say "disk added $x $(cat /sys/block/$x/size) serial=$(cat /sys/block/$x/serial 2>/dev/null)";; esac; done
  for x in $KNOWN_DISKS; do case "$DISKS" in *" $x "*) ;; *) say "disk removed $x";; esac; done
  KNOWN_NICS=$NICS; KNOWN_DISKS=$DISKS
done

#!/bin/sh
# The same updater without the three mistakes. It arms the BIOS only when all else is in place.
# Usage: update-fixed.sh IMAGE
set -eu

entry=/sys/class/firmware/dell_rbu
device=/sys/devices/platform/dell_rbu
packets=$(mktemp)
trap 'rm -f "$packets"' EXIT

give_up() {
  echo "$1; the BIOS is not armed" >&2
  { echo mono >$device/image_type; } 2>/dev/null || true # the driver lets go of what it holds
  exit 1
}

modprobe dell_rbu || give_up "the kernel has no dell_rbu"
modprobe dcdbas || give_up "the kernel has no dcdbas"
{ echo warm >/sys/kernel/reboot/mode; } 2>/dev/null || give_up "this kernel's restart clears memory"

echo "staging $1"
rbu packets "$1" -o "$packets" --force --packet-size 4096 >/dev/null
echo packet >$device/image_type
echo 4096 >$device/packet_size
echo init >$device/image_type
tries=100
until [ -e $entry/data ]; do
  [ $((tries -= 1)) -gt 0 ] || give_up "the kernel makes no firmware entry"
  sleep 0.1
done
echo 1 >$entry/loading
cat "$packets" >$entry/data || give_up "the kernel has no memory for the packets"
echo 0 >$entry/loading
# By a pipe: sysfs says that data has 0 bytes, and cmp -s would believe it.
cat $device/data | cmp -s - "$packets" || give_up "the driver has no memory for the packets"

echo "arming the BIOS"
smbios-token-ctl --token-id=0x5c --activate >/dev/null || true # ends with 1 when it worked, too
smbios-token-ctl --token-id=0x5c --is-active >/dev/null || give_up "the BIOS does not take the token"
echo "done: restart to update"

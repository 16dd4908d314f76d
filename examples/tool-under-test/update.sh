#!/bin/sh
# A BIOS updater as people write them: it works on the author's machine. Three mistakes are in it.
# Usage: update.sh IMAGE
set -eu

entry=/sys/class/firmware/dell_rbu
device=/sys/devices/platform/dell_rbu
packets=$(mktemp)
trap 'rm -f "$packets"' EXIT

modprobe dell_rbu
modprobe dcdbas

echo "staging $1"
rbu packets "$1" -o "$packets" --force --packet-size 4096 >/dev/null
echo packet >$device/image_type
echo 4096 >$device/packet_size
echo init >$device/image_type
{ echo 1 >$entry/loading; } || true # mistake 1: a kernel may take a moment to make this file
{ cat "$packets" >$entry/data; } || true
{ echo 0 >$entry/loading; } || true
# mistake 2: the driver does not say that it has no memory for the packets; only reading back does

echo "arming the BIOS"
smbios-token-ctl --token-id=0x5c --activate >/dev/null || true # ends with 1 when it worked, too
{ echo warm >/sys/kernel/reboot/mode; } || true # mistake 3: any other restart clears memory
echo "done: restart to update"

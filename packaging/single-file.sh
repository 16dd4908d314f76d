#!/bin/sh
# The single file: this script, and behind it a PEX for each Python. The one for the Python that is
# here is put beside its environment, once, and run from there.
set -u
rbu_fail() {
  echo "rbu: $1" >&2
  exit 1
}

# Where that is: in PEX_ROOT, else below ~/.cache. For whom that can't be written, such as a service
# without a home: in a directory of this user alone, which stays, too.
rbu_is_ours() {
  [ -w "$1" ] && LC_ALL=C ls -ldn "$1" | {
    read -r mode _ owner _
    case $mode in
      drwx------ | drwx------.) [ "$owner" = "$(id -u)" ] ;;
      *) false ;;
    esac
  }
}
if [ -z "${PEX_ROOT-}" ]; then
  PEX_ROOT=${XDG_CACHE_HOME:-${HOME:+$HOME/.cache}}
  PEX_ROOT=${PEX_ROOT:+$PEX_ROOT/pex}
  if ! { [ -n "$PEX_ROOT" ] && mkdir -p "$PEX_ROOT" && [ -w "$PEX_ROOT" ]; } 2>/dev/null; then
    PEX_ROOT=/var/tmp/openrbu-$(id -u)
    mkdir -m 700 "$PEX_ROOT" 2>/dev/null
    rbu_is_ours "$PEX_ROOT" 2>/dev/null ||
      rbu_fail "$PEX_ROOT is not a directory of this user alone: set PEX_ROOT to one"
  fi
  export PEX_ROOT
fi

# Which Python: the system's, else the first one of PATH that there is a PEX for. The name of its
# file tells the version; where it does not, Python is asked.
rbu_place() {
  case $1 in
@PLACES@
    *) false ;;
  esac
}
rbu_version() {
  version=$(readlink -f "$1")
  version=${version##*/python}
  case $version in
    3.[0-9] | 3.[0-9][0-9]) echo "$version" ;;
    *) "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null ;;
  esac
}
python=
for name in /usr/bin/python3 @NAMES@ python3; do
  python=$(command -v "$name") && version=$(rbu_version "$python") && rbu_place "$version" && break
  python=
done
[ -n "$python" ] || rbu_fail "there is none of these Pythons here: @NAMES@"

rbu_file=$PEX_ROOT/openrbu/@DIGEST@/$version/rbu
if [ ! -x "$rbu_file" ]; then
  rbu_new=$rbu_file.$$
  mkdir -p "${rbu_file%/*}" && tail -c "+$rbu_at" "$0" | head -c "$rbu_size" |
    gzip -dc >"$rbu_new" &&
    chmod 755 "$rbu_new" && mv "$rbu_new" "$rbu_file" || {
    rm -f "$rbu_new"
    rbu_fail "$rbu_file can't be written: set PEX_ROOT to a directory with 120 MB of space"
  }
fi
exec "$rbu_file" "$@"

#!/usr/bin/env bash
# configure-nginx.sh <nginx source> <objs folder> "<arguments>": writes ngx_auto_config.h and friends into <objs folder>.
# Without arguments a tree with conf_flags (Debian's nginx-dev) is configured as Debian configures its nginx.
# ./configure writes a Makefile where it runs: that is a folder of links, so that the source itself stays untouched.
set -euo pipefail
source_dir=$1 objs=$2 arguments=${3:-}

# Links of another tree go first: one to its conf_flags would configure this tree with them.
rm -rf "$objs/tree"
mkdir -p "$objs/tree"
objs=$(cd "$objs" && pwd)
for entry in "$source_dir"/*; do
  [ "${entry##*/}" = Makefile ] || ln -sfn "$(realpath "$entry")" "$objs/tree/${entry##*/}"
done
cd "$objs/tree"
if [ -n "$arguments" ]; then
  read -r -a flags <<<"$arguments"
elif [ -f conf_flags ]; then
  # shellcheck disable=SC1091
  . ./conf_flags
  flags=(--with-cc-opt='-g -O2 -fPIC' --with-ld-opt=-fPIC "${NGX_CONF_FLAGS[@]}")
else
  flags=(--with-compat --with-threads --with-http_ssl_module --with-http_v2_module --with-http_auth_request_module --with-http_realip_module)
fi
if [ -f configure ]; then configure=./configure; else configure=auto/configure; fi
bash "$configure" --builddir="$objs" "${flags[@]}" >"$objs/configure.log" 2>&1 || {
  tail -n 20 "$objs/configure.log" >&2
  echo "nginx's ./configure failed in $source_dir; its whole output is in $objs/configure.log" >&2
  exit 1
}

#!/usr/bin/env bash
# The two builds agree: config and src/CMakeLists.txt name the same sources, those are the files there are, and nginx's
# build rebuilds when any of our headers changes.
# Called by scripts/test and by people: t/lint/source_lists.sh [folder of the sources]
# config is run as nginx's ./configure runs it, with an auto/module that only tells what it was given.
set -euo pipefail
cd "${1:-"$(dirname "$(readlink -f "$0")")/../.."}"
root=$PWD

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir "$work/auto"
# shellcheck disable=SC2016 # these are variables of config
printf '%s\n' 'printf "%s\n" $ngx_module_srcs >told.srcs' 'printf "%s\n" $ngx_module_deps >told.deps' >"$work/auto/module"
(
  cd "$work"
  # What ./configure has set by then; CFLAGS and the like are only appended to.
  # shellcheck disable=SC2034
  ngx_addon_dir=$root ngx_module_link=DYNAMIC NGX_CC_NAME=gcc NGX_MACHINE=x86_64 CFLAGS=''
  PATH=$work:$PATH
  # shellcheck disable=SC1091
  . "$root/config"
)

relative() { sed "s|^$root/||" "$1" | sort; }
relative "$work/told.srcs" >"$work/config"
relative "$work/told.deps" >"$work/deps"
grep -oE '\b(apikey|nginx)/[A-Za-z0-9_]+\.cpp' src/CMakeLists.txt | sed 's|^|src/|' | sort >"$work/cmake"
find src/apikey src/nginx -name '*.cpp' | sort >"$work/sources"
find include/apikey src -name '*.hpp' | sort >"$work/headers"

broken=no
# same SENTENCE EXPECTED FOUND
same() {
  if ! cmp -s "$2" "$3"; then
    printf 'source_lists: %s\n' "$1" >&2
    { diff "$2" "$3" || true; } | grep '^[<>]' >&2
    broken=yes
  fi
}
same "src/CMakeLists.txt (<) and config (>) name different sources" "$work/cmake" "$work/config"
same "the sources on disk (<) are not those src/CMakeLists.txt names (>)" "$work/sources" "$work/cmake"
same "the headers on disk (<) are not those in config's ngx_module_deps (>)" "$work/headers" "$work/deps"

if [ "$broken" = yes ]; then
  exit 1
fi
echo "source_lists: config and CMake name the same $(wc -l <"$work/cmake") sources, config all $(wc -l <"$work/headers") headers"

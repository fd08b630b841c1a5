#!/usr/bin/env bash
# Who may know whom: the core knows no nginx, one file opens LMDB for reading, one header brings nginx in, one file of
# keyloader prints.
# Called by scripts/test and by people: t/lint/layering.sh [folder of the sources]
# Reads sources only.
set -euo pipefail
cd "${1:-"$(dirname "$(readlink -f "$0")")/../.."}"

broken=no
# refuse SENTENCE LINES: says which lines break a rule, if any do.
refuse() {
  if [ -n "$2" ]; then
    printf 'layering: %s\n%s\n' "$1" "$2" >&2
    broken=yes
  fi
}
# search PATTERN FOLDER …: what matches in the sources there. Nothing found is fine, a missing folder is not.
search() {
  local pattern=$1
  shift
  grep -rnE --include='*.cpp' --include='*.hpp' -- "$pattern" "$@" || [ $? -eq 1 ]
}
# except PATTERN: drops the files that may.
except() { grep -vE "^($1):" || [ $? -eq 1 ]; }

include='^[[:space:]]*#[[:space:]]*include[[:space:]]*'

found=$(search "ngx_|NGX_|${include}[<\"][^>\"]*nginx" include/apikey src/apikey)
refuse "the core (include/apikey, src/apikey) must not mention nginx's API" "$found"

found=$(search "${include}[<\"]lmdb\\.h[>\"]" include src tools |
  except 'src/apikey/snapshot\.cpp|tools/keyloader/publish/[^:]*')
refuse "only src/apikey/snapshot.cpp and tools/keyloader/publish/ may include lmdb.h" "$found"

found=$(search "${include}<(ngx_|nginx)|${include}\"(ngx_config|ngx_core|ngx_http|nginx)\\.h\"" include src tools |
  except 'src/nginx/ngx_http_apikey_ngx\.hpp')
refuse "only src/nginx/ngx_http_apikey_ngx.hpp may include nginx's headers" "$found"

found=$(search "${include}\"(.*/)?ngx_http_apikey" include src/apikey tools)
refuse "the core and keyloader must not include the adapter (src/nginx)" "$found"

found=$(search 'fmt::(print|println)|std::(cout|cerr|clog)|\b(printf|fprintf|fputs|puts|fwrite)\(' tools/keyloader |
  except 'tools/keyloader/(output|progress)\.cpp')
refuse "only tools/keyloader/output.cpp and progress.cpp may print: texts from outside are shown in one way" "$found"

if [ "$broken" = yes ]; then
  exit 1
fi
echo "layering: the core knows no nginx; lmdb.h and nginx's headers come in, and texts go out, only where they may"

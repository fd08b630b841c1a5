#!/usr/bin/env bash
# The module shows nginx three symbols and the rest of the process none: nginx loads it with RTLD_GLOBAL.
# Called by scripts/test and by people: t/lint/exports.sh <module.so>
# Reads the dynamic symbol table only.
set -euo pipefail
module=${1:?"usage: t/lint/exports.sh <module.so>"}

expected='ngx_module_names
ngx_module_order
ngx_modules'
found=$(nm -D --defined-only --format=posix "$module" | cut -d' ' -f1 | LC_ALL=C sort)
if [ "$found" != "$expected" ]; then
  printf 'exports: %s must export ngx_modules, ngx_module_names and ngx_module_order; it differs in (< missing, > too many):\n' \
    "$module" >&2
  { diff <(printf '%s\n' "$expected") <(printf '%s\n' "$found") || true; } | grep '^[<>]' >&2
  exit 1
fi
echo "exports: $module exports nginx's three symbols and nothing else"

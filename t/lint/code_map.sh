#!/usr/bin/env bash
# docs/code.md names every source file of the programs once, and none that is not there.
# Called by scripts/test and by people: t/lint/code_map.sh [folder of the sources]
# A row belongs to the folder in the heading above it; the .cpp of a header of include/apikey is in src/apikey.
set -euo pipefail
cd "${1:-"$(dirname "$(readlink -f "$0")")/../.."}"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

awk '
  /^## / { folder = match($0, /\(`[^`]+`\)$/) ? substr($0, RSTART + 2, RLENGTH - 4) : "" }
  folder != "" && /^\| `/ {
    split($0, cells, " *\\| *")
    count = split(cells[2], names, "` `")
    gsub(/`/, "", names[1]); gsub(/`/, "", names[count])
    stem = names[1]; sub(/\.[a-z]+$/, "", stem)
    for (i = 1; i <= count; i++) {
      file = i == 1 ? names[1] : stem names[i]
      print (folder == "include/apikey" && file ~ /\.cpp$/ ? "src/apikey" : folder) "/" file
    }
  }' docs/code.md | sort >"$work/named"
find include/apikey src tools/keyloader -name '*.cpp' -o -name '*.hpp' | grep -E '^(include/apikey|src|tools/keyloader)/' | sort >"$work/there"

if ! cmp -s "$work/there" "$work/named"; then
  echo "code_map: the files there are (<) are not those that docs/code.md names (>)" >&2
  { diff "$work/there" "$work/named" || true; } | grep '^[<>]' >&2
  exit 1
fi
echo "code_map: docs/code.md names all $(wc -l <"$work/there") files"

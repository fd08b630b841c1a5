#!/usr/bin/env bash
# The core allocates nothing, throws nothing, prints nothing and reads no clock: no object of it needs a symbol that does.
# Called by scripts/test and by people: t/lint/symbols.sh <build folder>, a release build without sanitizers.
# liblmdb allocates while a snapshot is opened, inside the library; that is no symbol of ours.
set -euo pipefail
build=${1:?"usage: t/lint/symbols.sh <build folder>"}
library=$build/src/libapikey_core.a
if [ ! -f "$library" ]; then
  echo "symbols: $library does not exist; build it with: cmake --build $build --target apikey_core" >&2
  exit 1
fi

# Mangled names: _Zn… and _Zd… are operator new and delete, _ZSt…__throw_… what the standard library throws with.
allocates='malloc|calloc|realloc|reallocarray|free|posix_memalign|aligned_alloc|memalign|strn?dup|v?asprintf|_Zn[wa].*|_Zd[la].*'
throws='__cxa_(allocate_exception|throw|rethrow|begin_catch)|_Unwind_Resume|_ZSt.*__throw_.*|__gxx_personality_v0'
reads_clock='clock_gettime|clock|time|gettimeofday|localtime(_r)?|gmtime(_r)?|_ZNSt6chrono.*now.*'
prints='(__)?v?(f|d|s|sn)?printf(_chk)?|f?puts|putchar|fwrite|perror|(__)?v?syslog(_chk)?|_ZNSo.*|_ZSt4cout|_ZSt4cerr'
reads_surroundings='getenv|secure_getenv|random|s?rand(_r)?'
forbidden="^($allocates|$throws|$reads_clock|$prints|$reads_surroundings)\$"

# Each line: object, symbol; symbol versions (@GLIBC_…) do not count.
needed=$(nm -A -u "$library" | sed -E 's/^[^:]*:([^:]*): *[UwWvV] +/\1 /; s/@.*$//')
found=$(awk -v pattern="$forbidden" '$2 ~ pattern' <<<"$needed")
if [ -n "$found" ]; then
  printf 'symbols: objects of the core need what the core must not use (object, symbol):\n%s\n' "$found" >&2
  exit 1
fi
echo "symbols: $(ar t "$library" | wc -l) objects of the core allocate, throw, print and time nothing"

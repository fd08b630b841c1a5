#!/usr/bin/env bash
# Each lint can fail: breaks a copy of the sources, a core library and a module in every way the lints are there for.
# Called by scripts/test and by people: t/lint/self_test.sh
# Works in a temporary folder; needs a compiler, no build.
set -euo pipefail
lints=$(dirname "$(readlink -f "$0")")
root=$lints/../..
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
checked=0

# A fresh copy of what the source lints read.
copy_sources() {
  rm -rf "$work/tree"
  mkdir -p "$work/tree/tools" "$work/tree/docs"
  cp "$root/docs/code.md" "$work/tree/docs"
  cp -r "$root/config" "$root/include" "$root/src" "$work/tree"
  cp -r "$root/tools/keyloader" "$work/tree/tools"
  # The files there are, whatever is being written next door.
  local name
  for name in $(cd "$work/tree/src" && grep -oE '\b(apikey|nginx)/[A-Za-z0-9_]+\.cpp' CMakeLists.txt); do
    [ -f "$work/tree/src/$name" ] || touch "$work/tree/src/$name"
  done
}
# passes WHAT LINT ARGUMENTS … / fails WHAT PATTERN LINT ARGUMENTS …: the sentence must say what is wrong.
passes() {
  local what=$1
  shift
  if ! "$lints/$1" "${@:2}" >"$work/out" 2>&1 || [ "$(wc -l <"$work/out")" -ne 1 ]; then
    echo "self_test: $1 should pass: $what" >&2
    cat "$work/out" >&2
    exit 1
  fi
  checked=$((checked + 1))
}
fails() {
  local what=$1 pattern=$2 status=0
  shift 2
  "$lints/$1" "${@:2}" >"$work/out" 2>&1 || status=$?
  if [ "$status" -ne 1 ] || ! grep -qF "$pattern" "$work/out"; then
    echo "self_test: $1 should fail and name \"$pattern\": $what (status $status)" >&2
    cat "$work/out" >&2
    exit 1
  fi
  checked=$((checked + 1))
}
# breaks_layering FILE LINE: adds the line to a fresh copy.
breaks_layering() {
  copy_sources
  printf '%s\n' "$2" >>"$work/tree/$1"
  fails "$2 in $1" "$1" layering.sh "$work/tree"
}

copy_sources
passes "the sources as they are" layering.sh "$work/tree"
breaks_layering src/apikey/record.cpp '// like ngx_str_t'
breaks_layering include/apikey/record.hpp '#define NGX_OK 0'
breaks_layering src/apikey/record.cpp '#include <lmdb.h>'
breaks_layering tools/keyloader/main.cpp '#  include "lmdb.h"'
breaks_layering src/nginx/ngx_http_apikey_module.cpp '#include <ngx_core.h>'
breaks_layering src/nginx/ngx_http_apikey_module.cpp '#include <nginx.h>'
breaks_layering tools/keyloader/main.cpp 'void f() { fmt::print("{}", name); }'
breaks_layering tools/keyloader/table.cpp 'void f() { std::cerr << name; }'
breaks_layering tools/keyloader/main.cpp '#include "../../src/nginx/ngx_http_apikey_conf.hpp"'

copy_sources
passes "the sources as they are" source_lists.sh "$work/tree"
sed -i '/record\.cpp$/d' "$work/tree/config"
fails "config without record.cpp" src/apikey/record.cpp source_lists.sh "$work/tree"
copy_sources
sed -i 's| apikey/record\.cpp||' "$work/tree/src/CMakeLists.txt"
fails "CMake without record.cpp" src/apikey/record.cpp source_lists.sh "$work/tree"
copy_sources
touch "$work/tree/src/apikey/stray.cpp"
fails "a source nobody names" src/apikey/stray.cpp source_lists.sh "$work/tree"
copy_sources
mkdir "$work/tree/src/apikey/deep"
touch "$work/tree/src/apikey/deep/stray.hpp"
fails "a header config does not depend on" src/apikey/deep/stray.hpp source_lists.sh "$work/tree"

copy_sources
passes "the map as it is" code_map.sh "$work/tree"
sed -i '/record\.hpp/d' "$work/tree/docs/code.md"
fails "a map without record" src/apikey/record.cpp code_map.sh "$work/tree"
copy_sources
rm "$work/tree/tools/keyloader/table.cpp"
fails "a map of a file that is gone" tools/keyloader/table.cpp code_map.sh "$work/tree"

# core_library CODE: a core library of that one source.
core_library() {
  rm -rf "$work/build"
  mkdir -p "$work/build/src"
  printf '%s\n' "$1" >"$work/core.cpp"
  c++ -std=c++20 -O1 -c -o "$work/build/src/core.o" "$work/core.cpp"
  ar rcs "$work/build/src/libapikey_core.a" "$work/build/src/core.o"
}
breaks_symbols() {
  core_library "$1"
  fails "$1" "$2" symbols.sh "$work/build"
}
core_library '#include <cstring>
unsigned long f(const char* s) { return std::strlen(s); }'
passes "a core that measures a text" symbols.sh "$work/build"
breaks_symbols '#include <cstdlib>
void* f() { return std::malloc(8); }' malloc
breaks_symbols '#include <cstdlib>
void f(void* p) { std::free(p); }' free
breaks_symbols 'int* f() { return new int; }' _Znwm
breaks_symbols 'void f(int* p) { delete p; }' _ZdlPvm
breaks_symbols 'void f() { throw 1; }' __cxa_throw
breaks_symbols '#include <string_view>
std::string_view f(std::string_view s, unsigned long n) { return s.substr(n); }' __throw_out_of_range
breaks_symbols '#include <ctime>
void f(timespec* t) { clock_gettime(CLOCK_MONOTONIC, t); }' clock_gettime
breaks_symbols '#include <ctime>
long f() { return time(nullptr); }' time
breaks_symbols '#include <chrono>
auto f() { return std::chrono::steady_clock::now(); }' chrono
breaks_symbols '#include <cstdio>
void f(char* s, int n) { std::snprintf(s, 9, "%d", n); }' snprintf
breaks_symbols '#include <cstdio>
void f(int n) { std::printf("%d", n); }' printf
breaks_symbols '#include <iostream>
void f(int n) { std::cerr << n; }' cerr
rm "$work/build/src/libapikey_core.a"
fails "no library" "does not exist" symbols.sh "$work/build"

# module CODE: a shared object of that one source.
module() {
  printf '%s\n' "$1" >"$work/module.cpp"
  c++ -shared -fPIC -o "$work/module.so" "$work/module.cpp"
}
three='extern "C" { int ngx_modules, ngx_module_names, ngx_module_order; }'
module "$three"
passes "nginx's three symbols" exports.sh "$work/module.so"
module "$three int stray;"
fails "one symbol too many" stray exports.sh "$work/module.so"
module 'extern "C" { int ngx_modules, ngx_module_names; }'
fails "one symbol missing" ngx_module_order exports.sh "$work/module.so"

echo "self_test: the lints pass and fail where they should, $checked times"

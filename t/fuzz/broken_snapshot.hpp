// A good snapshot of 40 keys and a fuzzer's edits of it: random bytes alone would never get past magic and hash.
// Used by fuzz_pages and fuzz_verify. An edit: 2 bytes page, 2 bytes place in it, 1 byte how many of 1, 2, 4, 8 bytes,
// then those bytes.
#pragma once

#include <algorithm>
#include <cstring>

#include "fuzz_input.hpp"
#include "snapshot_fixture.hpp"

inline constexpr std::size_t kFuzzPage = 4096;

struct GoodSnapshot {
  fixture::Bytes bytes;
  fixture::Keys keys;
};

inline const GoodSnapshot& good_snapshot() {
  static const GoodSnapshot good = [] {
    const fixture::TempDir dir;
    GoodSnapshot made;
    made.bytes = fixture::read_file(fixture::build(dir, 40, &made.keys));
    return made;
  }();
  return good;
}

inline void edit(FuzzInput& input, fixture::Bytes& bytes) {
  const std::size_t pages = bytes.size() / kFuzzPage;
  for (std::size_t edits = input.byte() % 16; edits > 0; --edits) {
    const std::size_t page = input.value<std::uint16_t>() % pages;
    const std::size_t at = page * kFuzzPage + input.value<std::uint16_t>() % kFuzzPage;
    const std::size_t width = std::size_t{1} << (input.byte() % 4);
    const auto value = input.value<std::uint64_t>();
    std::memcpy(bytes.data() + at, &value, std::min(width, bytes.size() - at));
  }
}

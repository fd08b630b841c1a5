// The page walker: on raw bytes, and on a snapshot with some bytes changed. What it hands out lies in the file, and
// keys of one database ascend.
#include <vector>

#include "apikey/pages.hpp"
#include "broken_snapshot.hpp"

namespace {

using Bytes = std::span<const std::byte>;

struct Seen {
  Bytes file;
  std::string_view database;
  Bytes key;
};

bool on_entry(void* context, std::string_view database, Bytes key, std::uint64_t offset, Bytes value) noexcept {
  auto& seen = *static_cast<Seen*>(context);
  require(offset <= seen.file.size() && value.size() <= seen.file.size() - offset);
  require(value.data() == seen.file.data() + offset);
  require(!key.empty() && key.data() > seen.file.data());
  if (database.data() == seen.database.data()) {
    require(std::lexicographical_compare(seen.key.begin(), seen.key.end(), key.begin(), key.end()));
  }
  seen.database = database;
  seen.key = key;
  return true;
}

void walk(Bytes file) {
  apikey::LmdbHeader header;
  if (!apikey::read_lmdb_header(file, header).ok()) return;
  if (apikey::page_bitmap_words(header) > file.size()) return;
  std::vector<std::uint64_t> scratch(apikey::page_bitmap_words(header));
  Seen seen{file, {}, {}};
  (void)apikey::walk_pages(file, header, scratch, {&seen, on_entry, nullptr});
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzInput input(data, size);
  if (input.byte() == 0) {
    walk(input.remaining_bytes());
    return 0;
  }
  fixture::Bytes bytes = good_snapshot().bytes;
  edit(input, bytes);
  bytes.resize(bytes.size() - std::min<std::size_t>(bytes.size(), input.value<std::uint16_t>()));
  walk(bytes);
  return 0;
}

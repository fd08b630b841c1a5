// Own, bounds-checked reading of LMDB's page structure (data version 1, as written by liblmdb 0.9): every page is
// reached at most once, lies in the file, keys ascend, sizes are in range. liblmdb itself follows page pointers
// unchecked, so nothing is given to it that did not pass here.
// Source of the layout: mdb.c of liblmdb 0.9 (MDB_page, MDB_node, MDB_meta, MDB_db).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "apikey/status.hpp"

namespace apikey {

struct LmdbHeader {
  std::uint32_t page_size = 0;
  std::uint64_t last_page = 0;  // of the newer meta page
};

// RETURNS: damaged or unsupported (not LMDB, another data version, another byte order or word size).
Status read_lmdb_header(std::span<const std::byte> file, LmdbHeader& header) noexcept;

// How many 8-byte words walk_pages needs as scratch: one bit a page.
[[nodiscard]] std::size_t page_bitmap_words(const LmdbHeader& header) noexcept;

// Called for each entry of each named database, in order. `value_offset` is a file offset. Return false to stop.
struct PageVisitor {
  void* context;
  bool (*entry)(void* context, std::string_view database, std::span<const std::byte> key, std::uint64_t value_offset,
                std::span<const std::byte> value) noexcept;
  // Called between pages; false = give up (the worker is stopping). May be null.
  bool (*carry_on)(void* context) noexcept;
};

// Walks the main database, all named ones and the free list. REQUIRES: scratch.size() >= page_bitmap_words(header),
// zeroed. RETURNS: damaged with the page number, or failed when the visitor stopped it.
Status walk_pages(std::span<const std::byte> file, const LmdbHeader& header, std::span<std::uint64_t> scratch,
                  const PageVisitor& visitor) noexcept;

}  // namespace apikey

// Walks LMDB's pages as bytes. Called by the verifier and, to find where entries stand, by the builder of the index.
// Must be safe on any bytes whatever: every number is checked before it is used as an offset, every page is marked
// before it is read, so a cycle ends at the second visit.
#include "apikey/pages.hpp"

#include <algorithm>
#include <cstring>

#include "apikey/little_endian.hpp"
#include "apikey/lmdb_page.hpp"

namespace apikey {
namespace {

using namespace lmdb;
using Bytes = std::span<const std::byte>;

constexpr std::uint32_t kMagicSwapped = 0xdec0efbe;
constexpr std::uint32_t kMinPageSize = 4096;
constexpr std::uint32_t kMaxPageSize = 32768;  // liblmdb 0.9 uses 32 KiB where the system's pages are larger
constexpr std::uint64_t kMaxPages = std::uint64_t{1} << 40;
constexpr unsigned kMaxDepth = 32;

// As memcmp() over the common part, then the shorter one first: LMDB's order.
int compare(Bytes left, Bytes right) noexcept {
  const std::size_t common = std::min(left.size(), right.size());
  const int order = common == 0 ? 0 : std::memcmp(left.data(), right.data(), common);
  if (order != 0) return order;
  return left.size() < right.size() ? -1 : static_cast<int>(left.size() > right.size());
}

enum class Kind : std::uint8_t { free_list, main, named };

// One database on its way from its first key to its last.
struct Progress {
  Kind kind;
  std::string_view name;
  Database seen;  // what was counted
  Bytes last_key;
  Bytes lower_bound;  // separator above the next key
  unsigned depth = 0;
};

class Walker {
 public:
  Walker(Bytes file, const LmdbHeader& header, std::span<std::uint64_t> visited, const PageVisitor& visitor) noexcept
      : file_(file), header_(header), visited_(visited), visitor_(visitor) {}

  Status walk() noexcept;

 private:
  Status walk_database(const Database& database, Kind kind, std::string_view name) noexcept;
  Status walk_page(std::uint64_t number, unsigned level, Progress& progress) noexcept;
  Status walk_branch(Bytes page, std::uint64_t number, unsigned level, Progress& progress) noexcept;
  Status walk_leaf(Bytes page, std::uint64_t number, Progress& progress) noexcept;
  Status visit_entry(Bytes page, std::uint64_t number, const Node& node, Progress& progress) noexcept;
  Status find_value(Bytes page, std::uint64_t number, const Node& node, Progress& progress, Bytes& value,
                    std::uint64_t& offset) noexcept;
  Status take_free_pages(Bytes value, std::uint64_t number) noexcept;
  [[nodiscard]] bool in_order(const Node& node, const Progress& progress) const noexcept;

  // Marks pages as reached. RETURNS: damaged when one is outside or was reached before.
  Status mark(std::uint64_t first, std::uint64_t count) noexcept;
  [[nodiscard]] Bytes page_at(std::uint64_t number) const noexcept {
    return file_.subspan(number * header_.page_size, header_.page_size);
  }

  Bytes file_;
  const LmdbHeader& header_;
  std::span<std::uint64_t> visited_;
  const PageVisitor& visitor_;
};

Status Walker::mark(std::uint64_t first, std::uint64_t count) noexcept {
  const std::uint64_t pages = std::min(header_.last_page + 1, std::uint64_t{file_.size() / header_.page_size});
  if (first >= pages || count > pages - first) {
    return {StatusCode::damaged, "page {0} lies behind the last page of the file ({1} pages)", first + count - 1,
            pages};
  }
  for (std::uint64_t number = first; number < first + count; ++number) {
    const std::uint64_t bit = std::uint64_t{1} << (number % 64);
    if ((visited_[number / 64] & bit) != 0) {
      return {StatusCode::damaged, "page {0} is reached twice", number};
    }
    visited_[number / 64] |= bit;
  }
  return {};
}

Status Walker::walk() noexcept {
  if (visited_.size() < page_bitmap_words(header_)) {
    return {StatusCode::failed, "{0} words of scratch are too few for {1} pages", visited_.size(),
            header_.last_page + 1};
  }
  const Bytes first = page_at(0);
  const Bytes second = page_at(1);
  const bool is_second =
      load_le<std::uint64_t>(first, kPageHeader + 128) < load_le<std::uint64_t>(second, kPageHeader + 128);
  const Bytes meta = (is_second ? second : first).subspan(kPageHeader);
  Status status = mark(0, 2);
  if (status.ok()) status = walk_database(read_database(meta.subspan(24)), Kind::free_list, {});
  if (status.ok()) status = walk_database(read_database(meta.subspan(72)), Kind::main, {});
  return status;
}

Status Walker::walk_database(const Database& database, Kind kind, std::string_view name) noexcept {
  const bool is_plain = kind == Kind::free_list ? (database.flags & kIntegerKeys) != 0 : database.flags == 0;
  if (!is_plain) {
    return {StatusCode::unsupported,
            "a database has flags {0}; only plain ones are read (no duplicates, no integer keys)", database.flags};
  }
  if (database.root == kNoPage) {
    if (database.entries == 0 && database.depth == 0) return {};
    return {StatusCode::damaged, "a database of {0} entries has no root page", database.entries};
  }
  Progress progress{kind, name, {}, {}, {}, database.depth};
  if (database.depth == 0 || database.depth > kMaxDepth) {
    return {StatusCode::damaged, "a database cannot be {0} pages deep", database.depth};
  }
  const Status status = walk_page(database.root, 1, progress);
  if (!status.ok()) return status;
  const Database& seen = progress.seen;
  if (seen.entries != database.entries) {
    return {StatusCode::damaged, "a database says it has {0} entries and has {1}", database.entries, seen.entries};
  }
  if (seen.branch_pages != database.branch_pages || seen.leaf_pages != database.leaf_pages ||
      seen.overflow_pages != database.overflow_pages) {
    return {StatusCode::damaged, "a database with root page {0} has another number of pages than it says",
            database.root};
  }
  return {};
}

Status Walker::walk_page(std::uint64_t number, unsigned level, Progress& progress) noexcept {
  if (visitor_.carry_on != nullptr && !visitor_.carry_on(visitor_.context)) {
    return {StatusCode::failed, "stopped at page {0}", number};
  }
  const Status status = mark(number, 1);
  if (!status.ok()) return status;
  const Bytes page = page_at(number);
  if (load_le<std::uint64_t>(page, 0) != number) {
    return {StatusCode::damaged, "page {0} says that it is page {1}", number, load_le<std::uint64_t>(page, 0)};
  }
  const unsigned flags = load_le<std::uint16_t>(page, 10);
  if (flags == kBranchPage && level < progress.depth) return walk_branch(page, number, level, progress);
  if (flags == kLeafPage && level == progress.depth) return walk_leaf(page, number, progress);
  return {StatusCode::damaged, "page {0} has flags {1}, which do not belong there", number, flags};
}

Status Walker::walk_branch(Bytes page, std::uint64_t number, unsigned level, Progress& progress) noexcept {
  std::size_t count = 0;
  if (!node_count(page, count) || count == 0 || (count == 1 && progress.kind != Kind::free_list)) {
    return {StatusCode::damaged, "branch page {0} has {1} children or lengths that contradict each other", number,
            count};
  }
  ++progress.seen.branch_pages;
  for (std::size_t i = 0; i < count; ++i) {
    Node node;
    if (!read_node(page, i, true, node)) {
      return {StatusCode::damaged, "node {1} of branch page {0} does not lie in its page", number, i};
    }
    if (i > 0) {  // the first child's separator stands for minus infinity, whatever its bytes
      if (!in_order(node, progress)) {
        return {StatusCode::damaged, "branch page {0}: separator {1} is out of order", number, i};
      }
      progress.lower_bound = node.key;
    }
    const Status status = walk_page(node.child, level + 1, progress);
    if (!status.ok()) return status;
  }
  return {};
}

// True when the node's key is above all keys before it.
bool Walker::in_order(const Node& node, const Progress& progress) const noexcept {
  if (progress.kind == Kind::free_list) {
    if (node.key.size() != 8) return false;
    return progress.last_key.empty() ||
           load_le<std::uint64_t>(progress.last_key, 0) < load_le<std::uint64_t>(node.key, 0);
  }
  if (progress.last_key.empty()) return true;
  return compare(progress.last_key, node.key) < 0;
}

Status Walker::walk_leaf(Bytes page, std::uint64_t number, Progress& progress) noexcept {
  std::size_t count = 0;
  if (!node_count(page, count) || count == 0) {
    return {StatusCode::damaged, "leaf page {0} is empty or its lengths contradict each other", number};
  }
  ++progress.seen.leaf_pages;
  for (std::size_t i = 0; i < count; ++i) {
    Node node;
    if (!read_node(page, i, false, node)) {
      return {StatusCode::damaged, "node {1} of leaf page {0} does not lie in its page", number, i};
    }
    const bool is_above = progress.kind == Kind::free_list || progress.lower_bound.empty() ||
                          compare(progress.lower_bound, node.key) <= 0;
    if (!is_above || !in_order(node, progress)) {
      return {StatusCode::damaged, "leaf page {0}: key {1} is out of order", number, i};
    }
    progress.lower_bound = {};
    progress.last_key = node.key;
    const Status status = visit_entry(page, number, node, progress);
    if (!status.ok()) return status;
  }
  return {};
}

Status Walker::visit_entry(Bytes page, std::uint64_t number, const Node& node, Progress& progress) noexcept {
  ++progress.seen.entries;
  const bool is_database = progress.kind == Kind::main;
  if ((node.flags & ~kBigNode) != (is_database ? kDatabaseNode : 0U)) {
    return {StatusCode::damaged, "an entry of page {0} has flags {1}, which do not belong there", number, node.flags};
  }
  Bytes value;
  std::uint64_t offset = 0;
  const Status status = find_value(page, number, node, progress, value, offset);
  if (!status.ok()) return status;
  if (progress.kind == Kind::free_list) return take_free_pages(value, number);
  const std::string_view key(static_cast<const char*>(static_cast<const void*>(node.key.data())), node.key.size());
  if (is_database) {
    if (value.size() != kDatabaseSize) {
      return {StatusCode::damaged, "page {0} describes a database in {1} bytes", number, value.size()};
    }
    return walk_database(read_database(value), Kind::named, key);
  }
  if (!visitor_.entry(visitor_.context, progress.name, node.key, offset, value)) {
    return {StatusCode::failed, "stopped at an entry of page {0}", number};
  }
  return {};
}

Status Walker::find_value(Bytes page, std::uint64_t number, const Node& node, Progress& progress, Bytes& value,
                          std::uint64_t& offset) noexcept {
  if ((node.flags & kBigNode) == 0) {
    value = page.subspan(node.data_at, node.data_size);
    offset = number * header_.page_size + node.data_at;
    return {};
  }
  const auto first = load_le<std::uint64_t>(page, node.data_at);
  Status status = mark(first, 1);
  if (!status.ok()) return status;
  const Bytes head = page_at(first);
  const std::uint64_t pages = load_le<std::uint32_t>(head, 12);
  const std::uint64_t needed = (kPageHeader - 1 + std::uint64_t{node.data_size}) / header_.page_size + 1;
  if (load_le<std::uint64_t>(head, 0) != first || load_le<std::uint16_t>(head, 10) != kOverflowPage || pages < needed) {
    return {StatusCode::damaged, "page {0} is no overflow page of {1} bytes", first, node.data_size};
  }
  if (pages > 1) status = mark(first + 1, pages - 1);
  if (!status.ok()) return status;
  progress.seen.overflow_pages += pages;
  offset = first * header_.page_size + kPageHeader;
  value = file_.subspan(offset, node.data_size);
  return {};
}

// A list of page numbers behind their count: pages that nothing else may refer to.
Status Walker::take_free_pages(Bytes value, std::uint64_t number) noexcept {
  const std::uint64_t count = value.size() < 8 ? 0 : load_le<std::uint64_t>(value, 0);
  if (value.size() < 8 || value.size() % 8 != 0 || count > value.size() / 8 - 1) {
    return {StatusCode::damaged, "a list of free pages on page {0} has {1} bytes", number, value.size()};
  }
  for (std::uint64_t i = 0; i < count; ++i) {
    const Status status = mark(load_le<std::uint64_t>(value, 8 + i * 8), 1);
    if (!status.ok()) return status;
  }
  return {};
}

Status read_meta(Bytes file, std::size_t at, std::uint32_t& page_size, std::uint64_t& last_page,
                 std::uint64_t& transaction) noexcept {
  const Bytes page = file.subspan(at, kMetaEnd);
  const auto magic = load_le<std::uint32_t>(page, kPageHeader);
  if (magic == kMagicSwapped) return {StatusCode::unsupported, "an LMDB file of a machine with the other byte order"};
  if (load_le<std::uint32_t>(page, 12) == kMagic) {
    return {StatusCode::unsupported, "an LMDB file of a 32-bit machine; only 64-bit ones are read"};
  }
  if (magic != kMagic || (load_le<std::uint16_t>(page, 10) & kMetaPage) == 0) {
    return {StatusCode::damaged, "not an LMDB file: there is no LMDB header at byte {0}", at};
  }
  const auto version = load_le<std::uint32_t>(page, kPageHeader + 4);
  if (version != kDataVersion) {
    return {StatusCode::unsupported, "an LMDB file of data version {0}; version {1} (liblmdb 0.9) is read", version,
            kDataVersion};
  }
  page_size = load_le<std::uint32_t>(page, kPageHeader + 24);
  last_page = load_le<std::uint64_t>(page, kPageHeader + 120);
  transaction = load_le<std::uint64_t>(page, kPageHeader + 128);
  return {};
}

}  // namespace

Status read_lmdb_header(std::span<const std::byte> file, LmdbHeader& header) noexcept {
  header = LmdbHeader{};
  if (file.size() < kMetaEnd) {
    return {StatusCode::damaged, "{0} bytes are too few for an LMDB file", file.size()};
  }
  std::uint32_t size = 0;
  std::uint64_t last[2] = {};
  std::uint64_t transaction[2] = {};
  Status status = read_meta(file, 0, size, last[0], transaction[0]);
  if (!status.ok()) return status;
  if (size < kMinPageSize || size > kMaxPageSize || (size & (size - 1)) != 0) {
    return {StatusCode::unsupported, "pages of {0} bytes; sizes of 4096 to {1} are read", size, kMaxPageSize};
  }
  if (file.size() < std::size_t{2} * size) {
    return {StatusCode::damaged, "{0} bytes are too few for an LMDB file with pages of {1} bytes", file.size(), size};
  }
  std::uint32_t second_size = 0;
  status = read_meta(file, size, second_size, last[1], transaction[1]);
  if (!status.ok()) return status;
  if (second_size != size) {
    return {StatusCode::damaged, "the two LMDB headers disagree on the page size: {0} and {1}", size, second_size};
  }
  const std::uint64_t last_page = last[transaction[0] < transaction[1] ? 1 : 0];
  if (last_page == 0 || last_page >= kMaxPages) {
    return {StatusCode::damaged, "the LMDB header names {0} as the last page", last_page};
  }
  header = {size, last_page};
  return {};
}

std::size_t page_bitmap_words(const LmdbHeader& header) noexcept {
  return static_cast<std::size_t>(header.last_page / 64 + 1);
}

Status walk_pages(std::span<const std::byte> file, const LmdbHeader& header, std::span<std::uint64_t> scratch,
                  const PageVisitor& visitor) noexcept {
  return Walker(file, header, scratch, visitor).walk();
}

}  // namespace apikey

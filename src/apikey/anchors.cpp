// Writing and reading the region `anchors`. What is read may have been written by anybody: see anchors.hpp.
#include "apikey/anchors.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>

#include "apikey/fold64.hpp"

namespace apikey {
namespace {

constexpr std::size_t kRowWords = kAnchorRowSize / sizeof(std::uint64_t);
constexpr std::size_t kCheckedSize = 88;
constexpr std::size_t kCheckWord = kCheckedSize / sizeof(std::uint64_t);

using Row = std::array<std::uint64_t, kRowWords>;
using SharedRow = std::array<std::atomic<std::uint64_t>, kRowWords>;

struct Region {
  std::atomic<std::uint64_t> written;
  std::array<std::uint64_t, 7> reserved;
  std::array<SharedRow, kMaxAnchors> rows;
};
static_assert(sizeof(Region) == kAnchorsSize && sizeof(SharedRow) == kAnchorRowSize);

std::uint64_t check_of(const Row& row) noexcept { return fold64(std::as_bytes(std::span(row)).first(kCheckedSize)); }

Row row_of(const Anchor& anchor) noexcept {
  Row row{anchor.number, anchor.store, anchor.generation, anchor.audit_seq, anchor.adopted_us};
  std::memcpy(row.data() + 5, anchor.registry_id.data(), anchor.registry_id.size());
  std::memcpy(row.data() + 7, anchor.audit_head.data(), anchor.audit_head.size());
  row[kCheckWord] = check_of(row);
  return row;
}

const Region* region_of(std::span<const std::byte> bytes) noexcept {
  return bytes.size() == kAnchorsSize ? static_cast<const Region*>(static_cast<const void*>(bytes.data())) : nullptr;
}

bool is_same(const Anchor& a, const Anchor& b) noexcept {
  return a.store == b.store && a.registry_id == b.registry_id && a.generation == b.generation &&
         a.audit_seq == b.audit_seq && a.audit_head == b.audit_head;
}

}  // namespace

void keep_anchor(std::span<std::byte> region, const Anchor& anchor) noexcept {
  Anchor found;
  for (std::size_t i = 0; i < kMaxAnchors; ++i) {
    if (read_anchor(region, i, found) && is_same(found, anchor)) {
      return;
    }
  }
  if (region.size() != kAnchorsSize) {
    return;
  }
  auto& shared = *static_cast<Region*>(static_cast<void*>(region.data()));
  const std::uint64_t before = shared.written.fetch_add(1);
  Anchor numbered = anchor;
  numbered.number = std::max<std::uint64_t>(before + 1, 1);  // whatever somebody has made of the count
  const Row row = row_of(numbered);
  SharedRow& out = shared.rows.at(before % kMaxAnchors);
  for (std::size_t i = 0; i < row.size(); ++i) {
    out.at(i).store(row.at(i));
  }
}

bool read_anchor(std::span<const std::byte> region, std::size_t i, Anchor& anchor) noexcept {
  const Region* const shared = region_of(region);
  if (shared == nullptr) {
    return false;
  }
  // The row that is written next is the oldest one.
  const SharedRow& in = shared->rows.at((shared->written.load() % kMaxAnchors + i) % kMaxAnchors);
  Row row{};
  for (std::size_t word = 0; word < row.size(); ++word) {
    row.at(word) = in.at(word).load();
  }
  if (row[0] == 0 || row[kCheckWord] != check_of(row)) {
    return false;
  }
  anchor.number = row[0];
  anchor.store = row[1];
  anchor.generation = row[2];
  anchor.audit_seq = row[3];
  anchor.adopted_us = row[4];
  std::memcpy(anchor.registry_id.data(), row.data() + 5, anchor.registry_id.size());
  std::memcpy(anchor.audit_head.data(), row.data() + 7, anchor.audit_head.size());
  return true;
}

void carry_anchors(std::span<const std::byte> from, std::span<std::byte> to) noexcept {
  Anchor anchor;
  for (std::size_t i = 0; i < kMaxAnchors; ++i) {
    if (read_anchor(from, i, anchor)) {
      keep_anchor(to, anchor);
    }
  }
}

}  // namespace apikey

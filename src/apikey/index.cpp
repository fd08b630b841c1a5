// Building and searching the index. The reader checks every offset against the file before it follows it, so that
// even bytes that changed after they were verified (memory=mapped) lead to `damaged`, never outside the file.
// Called per request (find, row) and by keyloader (builder). Must never allocate.
#include "apikey/index.hpp"

#include <algorithm>
#include <cstring>

#include "apikey/fold64.hpp"
#include "apikey/little_endian.hpp"
#include "apikey/record.hpp"

namespace apikey {
namespace {

// As load_le and store_le, from a pointer whose bounds have been checked.
template <typename T>
T read_le(const std::byte* at) noexcept {
  return load_le<T>({at, sizeof(T)}, 0);
}

template <typename T>
void write_le(std::byte* at, T value) noexcept {
  store_le<T>({at, sizeof(T)}, 0, value);
}

constexpr std::array<char, 8> kMagic = {'A', 'K', 'I', 'N', 'D', 'E', 'X', '1'};
constexpr std::size_t kCheckedHeader = 40;
constexpr std::uint64_t kTagMask = 0xffffff;
constexpr unsigned kOffsetShift = 24;
constexpr std::uint64_t kMaxOffset = (std::uint64_t{1} << 40) - 1;

// Of 7 places in a bucket 4.9 are taken on average: nine keys in ten stand in their home bucket.
constexpr std::uint64_t kFilledTenths = 49;

std::uint64_t tag_of(const Digest& digest) noexcept {
  return std::uint64_t{digest.bytes[8]} | std::uint64_t{digest.bytes[9]} << 8 | std::uint64_t{digest.bytes[10]} << 16;
}

std::uint64_t home_of(const Digest& digest, std::uint64_t buckets) noexcept {
  __extension__ using Wide = unsigned __int128;
  std::uint64_t head;
  std::memcpy(&head, digest.bytes.data(), sizeof head);
  return static_cast<std::uint64_t>((static_cast<Wide>(head) * buckets) >> 64);
}

std::uint64_t bucket_check(std::uint64_t number, const std::byte* bucket) noexcept {
  Fold64 fold(kBucketSize);
  fold.word(number);
  fold.bytes({bucket + 8, kBucketSize - 8});
  return fold.value();
}

// Without a branch on the bytes: how much of a digest agrees cannot be timed.
bool same_digest(const Digest& digest, const std::byte* at) noexcept {
  std::uint64_t difference = 0;
  for (std::size_t i = 0; i < digest.bytes.size(); i += 8) {
    std::uint64_t word;
    std::memcpy(&word, digest.bytes.data() + i, sizeof word);
    difference |= word ^ read_le<std::uint64_t>(at + i);
  }
  return difference == 0;
}

std::uint32_t first_number(Table table) noexcept { return table == Table::scopes ? 0 : 1; }
std::size_t slot_of(Table table) noexcept { return static_cast<std::size_t>(table) - 1; }

}  // namespace

std::uint64_t index_bucket_count(std::uint64_t keys, std::size_t page_size) noexcept {
  return std::max<std::uint64_t>(page_size / kBucketSize, keys / kFilledTenths * 10 + keys % kFilledTenths + 1);
}

std::size_t index_size(std::uint64_t buckets, const RowCounts& rows) noexcept {
  std::size_t size = kIndexHeaderSize + static_cast<std::size_t>(buckets) * kBucketSize;
  for (const std::uint32_t count : rows) size += std::size_t{count} * 8;
  return size;
}

IndexBuilder::IndexBuilder(std::span<std::byte> value, std::uint64_t buckets, const RowCounts& rows) noexcept
    : value_(value), buckets_(buckets), rows_(rows) {
  std::memset(value_.data(), 0, value_.size());
}

bool IndexBuilder::add_key(const Digest& digest, std::uint64_t offset) noexcept {
  if (offset == 0 || offset > kMaxOffset) return false;
  const std::uint64_t entry = tag_of(digest) | offset << kOffsetShift;
  std::uint64_t bucket = home_of(digest, buckets_);
  for (std::uint64_t probe = 0; probe < buckets_ && probe <= 0xffffffff; ++probe) {
    std::byte* at = value_.data() + kIndexHeaderSize + bucket * kBucketSize + 8;
    for (std::size_t i = 0; i < kEntriesPerBucket; ++i, at += 8) {
      if (read_le<std::uint64_t>(at) != 0) continue;
      write_le(at, entry);
      max_probe_ = std::max(max_probe_, static_cast<std::uint32_t>(probe));
      return true;
    }
    bucket = bucket + 1 == buckets_ ? 0 : bucket + 1;
  }
  return false;
}

bool IndexBuilder::add_row(Table table, std::uint32_t number, std::uint64_t offset) noexcept {
  const std::size_t slot = slot_of(table);
  if (number < first_number(table) || number - first_number(table) >= rows_[slot]) return false;
  std::size_t at = kIndexHeaderSize + static_cast<std::size_t>(buckets_) * kBucketSize;
  for (std::size_t i = 0; i < slot; ++i) at += std::size_t{rows_[i]} * 8;
  write_le(value_.data() + at + std::size_t{number - first_number(table)} * 8, offset);
  return true;
}

void IndexBuilder::finish() noexcept {
  std::byte* header = value_.data();
  std::memcpy(header, kMagic.data(), kMagic.size());
  write_le(header + 8, buckets_);
  write_le(header + 16, max_probe_);
  for (std::size_t i = 0; i < kTableCount; ++i) write_le(header + 24 + i * 4, rows_[i]);
  write_le(header + kCheckedHeader, fold64({header, kCheckedHeader}));
  for (std::uint64_t bucket = 0; bucket < buckets_; ++bucket) {
    std::byte* at = header + kIndexHeaderSize + bucket * kBucketSize;
    write_le(at, bucket_check(bucket, at));
  }
}

Status Index::open(std::span<const std::byte> file, std::uint64_t offset, std::uint64_t size, Index& index) noexcept {
  index = Index{};
  if (offset > file.size() || size > file.size() - offset || size < kIndexHeaderSize) {
    return {StatusCode::damaged, "the index of {0} bytes at offset {1} does not lie in the file", size, offset};
  }
  const std::byte* header = file.data() + offset;
  if (std::memcmp(header, kMagic.data(), kMagic.size()) != 0 ||
      read_le<std::uint64_t>(header + kCheckedHeader) != fold64({header, kCheckedHeader}) ||
      read_le<std::uint32_t>(header + 20) != 0) {
    return {StatusCode::damaged, "the header of the index at offset {0} does not check", offset};
  }
  if ((offset + kIndexHeaderSize) % kBucketSize != 0) {
    return {StatusCode::damaged, "the buckets of the index at offset {0} do not begin on a cache line", offset};
  }
  const auto buckets = read_le<std::uint64_t>(header + 8);
  RowCounts rows{};
  for (std::size_t i = 0; i < kTableCount; ++i) rows[i] = read_le<std::uint32_t>(header + 24 + i * 4);
  if (buckets == 0 || buckets > size / kBucketSize || index_size(buckets, rows) != size) {
    return {StatusCode::damaged, "an index of {0} buckets does not take {1} bytes", buckets, size};
  }
  index.file_ = file;
  index.bucket_ = header + kIndexHeaderSize;
  index.buckets_ = buckets;
  index.max_probe_ = read_le<std::uint32_t>(header + 16);
  index.rows_ = rows;
  const std::byte* directory = index.bucket_ + buckets * kBucketSize;
  for (std::size_t i = 0; i < kTableCount; ++i) {
    index.directory_[i] = directory;
    directory += std::size_t{rows[i]} * 8;
  }
  return {};
}

Index::Find Index::find(const Digest& digest, std::span<const std::byte>& record) const noexcept {
  if (buckets_ == 0) return Find::damaged;
  const std::uint64_t tag = tag_of(digest);
  std::uint64_t bucket = home_of(digest, buckets_);
  for (std::uint64_t probe = 0; probe <= max_probe_ && probe < buckets_; ++probe) {
    const std::byte* at = bucket_ + bucket * kBucketSize;
    if (read_le<std::uint64_t>(at) != bucket_check(bucket, at)) return Find::damaged;
    for (std::size_t i = 0; i < kEntriesPerBucket; ++i) {
      const auto entry = read_le<std::uint64_t>(at + 8 + i * 8);
      if (entry == 0) return Find::absent;
      if ((entry & kTagMask) != tag) continue;
      const Find result = look_at(entry >> kOffsetShift, digest, record);
      if (result != Find::absent) return result;
    }
    bucket = bucket + 1 == buckets_ ? 0 : bucket + 1;
  }
  return Find::absent;
}

// One key in 16 million shares a tag with another. That the other one is whole tells such a neighbour from a leaf
// page that was overwritten: only then is the digest not there.
Index::Find Index::look_at(std::uint64_t offset, const Digest& digest,
                           std::span<const std::byte>& record) const noexcept {
  constexpr std::size_t needed = sizeof(Digest) + kRecordSize;
  if (file_.size() < needed || offset > file_.size() - needed) return Find::damaged;
  const std::byte* at = file_.data() + offset;
  const std::span<const std::byte> behind(at + sizeof(Digest), kRecordSize);
  if (same_digest(digest, at)) {
    record = behind;
    return Find::found;
  }
  Digest other;
  std::memcpy(other.bytes.data(), at, other.bytes.size());
  Record ignored;
  return decode_record(other, behind, ignored) ? Find::absent : Find::damaged;
}

bool Index::row(Table table, std::uint32_t number, std::span<const std::byte>& payload) const noexcept {
  const std::size_t slot = slot_of(table);
  if (slot >= kTableCount || number < first_number(table)) return false;
  const std::uint32_t place = number - first_number(table);
  if (place >= rows_[slot]) return false;
  const auto offset = read_le<std::uint64_t>(directory_[slot] + std::size_t{place} * 8);
  if (offset > file_.size()) return false;
  return decode_row(table, number, file_.subspan(offset), payload);
}

bool Index::count_entries(std::uint64_t& entries) const noexcept {
  entries = 0;
  for (std::uint64_t bucket = 0; bucket < buckets_; ++bucket) {
    const std::byte* at = bucket_ + bucket * kBucketSize;
    if (read_le<std::uint64_t>(at) != bucket_check(bucket, at)) return false;
    for (std::size_t i = 0; i < kEntriesPerBucket; ++i) entries += read_le<std::uint64_t>(at + 8 + i * 8) != 0;
  }
  return true;
}

}  // namespace apikey

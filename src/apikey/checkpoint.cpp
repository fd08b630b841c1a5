// The bytes of a checkpoint: its head, its rows, and whether a file is one.
// Called by the thread that writes checkpoints and by the master that reads one. Trusts nothing it reads.
#include "apikey/checkpoint.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "apikey/little_endian.hpp"

namespace apikey {
namespace {

constexpr std::array<char, 8> kMagic = {'A', 'K', 'S', 'T', 'A', 'T', 'E', '1'};
constexpr std::size_t kFormatAt = 8;
constexpr std::size_t kFlagsAt = 12;
constexpr std::size_t kWrittenAt = 16;
constexpr std::size_t kSeedAt = 24;
constexpr std::size_t kQuotasAt = 40;
constexpr std::size_t kUsageHeadAt = 64;
constexpr std::size_t kUsageAt = 88;
constexpr std::size_t kBodyCheckAt = 112;
constexpr std::size_t kHeadCheckAt = 120;
constexpr std::uint32_t kFinalFlag = 1;

void store_section(std::span<std::byte> out, std::size_t offset, const CheckpointSection& section) noexcept {
  store_le(out, offset, section.layout);
  store_le(out, offset + 8, section.row_size);
  store_le(out, offset + 16, section.rows);
}

CheckpointSection load_section(std::span<const std::byte> bytes, std::size_t offset) noexcept {
  return {load_le<std::uint64_t>(bytes, offset), load_le<std::uint64_t>(bytes, offset + 8),
          load_le<std::uint64_t>(bytes, offset + 16)};
}

CheckpointHead load_head(std::span<const std::byte> file) noexcept {
  CheckpointHead head;
  head.is_final = (load_le<std::uint32_t>(file, kFlagsAt) & kFinalFlag) != 0;
  head.written_us = load_le<std::uint64_t>(file, kWrittenAt);
  head.seed = {load_le<std::uint64_t>(file, kSeedAt), load_le<std::uint64_t>(file, kSeedAt + 8)};
  head.quotas = load_section(file, kQuotasAt);
  head.usage_head = load_section(file, kUsageHeadAt);
  head.usage = load_section(file, kUsageAt);
  head.body_check = load_le<std::uint64_t>(file, kBodyCheckAt);
  return head;
}

// Are these the rows this build writes?
bool has_rows_of(const CheckpointSection& section, const CheckpointSection& known) noexcept {
  return section.layout == known.layout && section.row_size == known.row_size;
}

// Cuts the section's rows off the front of `rest`. REQUIRES: row_size != 0.
// RETURNS: false when they are more than there is.
bool cut(const CheckpointSection& section, std::span<const std::byte>& rest,
         std::span<const std::byte>& rows) noexcept {
  if (section.rows > rest.size() / section.row_size) {
    return false;
  }
  rows = rest.first(section.rows * section.row_size);
  rest = rest.subspan(rows.size());
  return true;
}

}  // namespace

void encode_checkpoint_head(const CheckpointHead& head, std::span<std::byte> out) noexcept {
  std::memcpy(out.data(), kMagic.data(), kMagic.size());
  store_le(out, kFormatAt, kCheckpointFormat);
  store_le(out, kFlagsAt, head.is_final ? kFinalFlag : 0);
  store_le(out, kWrittenAt, head.written_us);
  store_le(out, kSeedAt, head.seed[0]);
  store_le(out, kSeedAt + 8, head.seed[1]);
  store_section(out, kQuotasAt, head.quotas);
  store_section(out, kUsageHeadAt, head.usage_head);
  store_section(out, kUsageAt, head.usage);
  store_le(out, kBodyCheckAt, head.body_check);
  store_le(out, kHeadCheckAt, fold64(out.first(kHeadCheckAt)));
}

Status decode_checkpoint(std::span<const std::byte> file, Checkpoint& checkpoint) noexcept {
  if (file.size() < kCheckpointHeadSize || std::memcmp(file.data(), kMagic.data(), kMagic.size()) != 0) {
    return {StatusCode::damaged, "its {0} bytes do not begin as a checkpoint does", file.size()};
  }
  if (load_le<std::uint64_t>(file, kHeadCheckAt) != fold64(file.first(kHeadCheckAt))) {
    return {StatusCode::damaged, "its head does not check"};
  }
  const auto format = load_le<std::uint32_t>(file, kFormatAt);
  if (format != kCheckpointFormat) {
    return {StatusCode::unsupported, "it has format {0}, this build reads format {1}", format, kCheckpointFormat};
  }
  Checkpoint found;
  found.head = load_head(file);
  const CheckpointHead known;
  if (!has_rows_of(found.head.quotas, known.quotas) || !has_rows_of(found.head.usage_head, known.usage_head) ||
      !has_rows_of(found.head.usage, known.usage)) {
    return {StatusCode::unsupported, "its rows were written by another version of this module"};
  }
  const auto body = file.subspan(kCheckpointHeadSize);
  auto rest = body;
  if (!cut(found.head.quotas, rest, found.quotas) || !cut(found.head.usage_head, rest, found.usage_head) ||
      !cut(found.head.usage, rest, found.usage) || !rest.empty() || found.head.usage_head.rows != 1) {
    return {StatusCode::damaged, "its {0} bytes are not what its head says", file.size()};
  }
  Fold64 fold(0);
  fold.bytes(body);
  if (fold.value() != found.head.body_check) {
    return {StatusCode::damaged, "its rows do not check"};
  }
  checkpoint = found;
  return {};
}

}  // namespace apikey

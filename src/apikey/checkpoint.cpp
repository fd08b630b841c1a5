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
constexpr std::size_t kStoresAt = 112;
constexpr std::uint32_t kFinalFlag = 1;

// Where the two checks stand, and the body begins.
struct Places {
  std::size_t body_check;
  std::size_t head_check;
  std::size_t body;
};
constexpr Places kPlaces = {136, 152, kCheckpointHeadSize};
constexpr Places kPlacesOfFormat1 = {112, 120, 128};

constexpr const Places& places_of(std::uint32_t format) noexcept { return format == 1 ? kPlacesOfFormat1 : kPlaces; }

void store_section(std::span<std::byte> out, std::size_t offset, const CheckpointSection& section) noexcept {
  store_le(out, offset, section.layout);
  store_le(out, offset + 8, section.row_size);
  store_le(out, offset + 16, section.rows);
}

CheckpointSection load_section(std::span<const std::byte> bytes, std::size_t offset) noexcept {
  return {load_le<std::uint64_t>(bytes, offset), load_le<std::uint64_t>(bytes, offset + 8),
          load_le<std::uint64_t>(bytes, offset + 16)};
}

CheckpointHead load_head(std::span<const std::byte> file, std::uint32_t format) noexcept {
  CheckpointHead head;
  head.is_final = (load_le<std::uint32_t>(file, kFlagsAt) & kFinalFlag) != 0;
  head.written_us = load_le<std::uint64_t>(file, kWrittenAt);
  head.seed = {load_le<std::uint64_t>(file, kSeedAt), load_le<std::uint64_t>(file, kSeedAt + 8)};
  head.quotas = load_section(file, kQuotasAt);
  head.usage_head = load_section(file, kUsageHeadAt);
  head.usage = load_section(file, kUsageAt);
  if (format != 1) {
    head.stores = load_section(file, kStoresAt);
  }
  head.body_check = load_le<std::uint64_t>(file, places_of(format).body_check);
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
  store_section(out, kStoresAt, head.stores);
  store_le(out, kPlaces.body_check, head.body_check);
  store_le(out, kPlaces.body_check + 8, std::uint64_t{0});
  store_le(out, kPlaces.head_check, fold64(out.first(kPlaces.head_check)));
}

Status decode_checkpoint(std::span<const std::byte> file, Checkpoint& checkpoint) noexcept {
  if (file.size() < kPlacesOfFormat1.body || std::memcmp(file.data(), kMagic.data(), kMagic.size()) != 0) {
    return {StatusCode::damaged, "its {0} bytes do not begin as a checkpoint does", file.size()};
  }
  const auto format = load_le<std::uint32_t>(file, kFormatAt);
  if (format == 0 || format > kCheckpointFormat) {
    return {StatusCode::unsupported, "it has format {0}, this build reads format {1}", format, kCheckpointFormat};
  }
  const Places& places = places_of(format);
  if (file.size() < places.body ||
      load_le<std::uint64_t>(file, places.head_check) != fold64(file.first(places.head_check))) {
    return {StatusCode::damaged, "its head does not check"};
  }
  Checkpoint found;
  found.head = load_head(file, format);
  const CheckpointHead known;
  if (!has_rows_of(found.head.quotas, known.quotas) || !has_rows_of(found.head.usage_head, known.usage_head) ||
      !has_rows_of(found.head.usage, known.usage) || !has_rows_of(found.head.stores, known.stores)) {
    return {StatusCode::unsupported, "its rows were written by another version of this module"};
  }
  const auto body = file.subspan(places.body);
  auto rest = body;
  if (!cut(found.head.quotas, rest, found.quotas) || !cut(found.head.usage_head, rest, found.usage_head) ||
      !cut(found.head.usage, rest, found.usage) || !cut(found.head.stores, rest, found.stores) || !rest.empty() ||
      found.head.usage_head.rows != 1) {
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

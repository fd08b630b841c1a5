// The 96 bytes of a key record: encode, decode, check. The byte map is in record.hpp.
// Called by keyloader for each key it publishes, and by the module for each request.
// Never trusts a byte before the check value over digest and record has been compared.
#include "apikey/record.hpp"

#include <algorithm>

#include "apikey/fold64.hpp"
#include "apikey/little_endian.hpp"

namespace apikey {
namespace {

constexpr std::size_t kVersionAt = 0;
constexpr std::size_t kFlagsAt = 1;
constexpr std::size_t kSizeAt = 2;
constexpr std::size_t kEnvAt = 4;
constexpr std::size_t kOwnerAt = 8;
constexpr std::size_t kPlanAt = 12;
constexpr std::size_t kScopesAt = 16;
constexpr std::size_t kNameAt = 20;
constexpr std::size_t kMetaAt = 24;
constexpr std::size_t kBindingsAt = 28;
constexpr std::size_t kLimitsAt = 32;
constexpr std::size_t kIdAt = 36;
constexpr std::size_t kFamilyAt = 49;
constexpr std::size_t kZeroAt = 62;
constexpr std::size_t kNotBeforeAt = 64;
constexpr std::size_t kExpiresAt = 72;
constexpr std::size_t kSuspendedUntilAt = 80;
constexpr std::size_t kCheckAt = 88;
static_assert(kFamilyAt - kIdAt == sizeof(KeyId) && kZeroAt - kFamilyAt == sizeof(KeyId));
static_assert(kCheckAt + 8 == kRecordSize);

constexpr std::uint8_t kKnownFlags = kFlagRevoked | kFlagSuspended | kFlagRequireTls;

std::uint64_t check_of(const Digest& digest, std::span<const std::byte> record) noexcept {
  Fold64 fold(sizeof digest.bytes + kCheckAt);
  fold.bytes(std::as_bytes(std::span(digest.bytes)));
  fold.bytes(record.first(kCheckAt));
  return fold.value();
}

void store_id(std::span<std::byte> out, std::size_t offset, const KeyId& id) noexcept {
  std::memcpy(out.data() + offset, id.bytes.data(), id.bytes.size());
}

KeyId load_id(std::span<const std::byte> bytes, std::size_t offset) noexcept {
  KeyId id;
  std::memcpy(id.bytes.data(), bytes.data() + offset, id.bytes.size());
  return id;
}

// An id has 100 bits: the last four of its 13 bytes are zero.
bool is_whole_id(const KeyId& id) noexcept { return (id.bytes.back() & 0x0f) == 0; }

bool is_consistent(const Record& record) noexcept {
  if ((record.flags & ~kKnownFlags) != 0 || record.env == 0 || record.owner == 0) {
    return false;
  }
  if (record.suspended_until.value != 0 && (record.flags & kFlagSuspended) == 0) {
    return false;
  }
  return is_whole_id(record.id) && is_whole_id(record.family);
}

}  // namespace

void encode_record(const Digest& digest, const Record& record, std::span<std::byte> out) noexcept {
  std::fill(out.begin(), out.end(), std::byte{0});
  store_le(out, kVersionAt, kRecordVersion);
  store_le(out, kFlagsAt, record.flags);
  store_le(out, kSizeAt, static_cast<std::uint16_t>(kRecordSize));
  store_le(out, kEnvAt, record.env);
  store_le(out, kOwnerAt, record.owner);
  store_le(out, kPlanAt, record.plan);
  store_le(out, kScopesAt, record.scopes);
  store_le(out, kNameAt, record.name);
  store_le(out, kMetaAt, record.meta);
  store_le(out, kBindingsAt, record.bindings);
  store_le(out, kLimitsAt, record.limits);
  store_id(out, kIdAt, record.id);
  store_id(out, kFamilyAt, record.family);
  store_le(out, kNotBeforeAt, record.not_before.value);
  store_le(out, kExpiresAt, record.expires.value);
  store_le(out, kSuspendedUntilAt, record.suspended_until.value);
  store_le(out, kCheckAt, check_of(digest, out));
}

bool decode_life(const Digest& digest, std::span<const std::byte> bytes, Life& life) noexcept {
  if (bytes.size() != kRecordSize || load_le<std::uint64_t>(bytes, kCheckAt) != check_of(digest, bytes)) {
    return false;
  }
  const auto flags = load_le<std::uint8_t>(bytes, kFlagsAt);
  life.is_revoked = (flags & kFlagRevoked) != 0;
  life.is_suspended = (flags & kFlagSuspended) != 0;
  life.suspended_until.value = load_le<std::int64_t>(bytes, kSuspendedUntilAt);
  life.not_before.value = load_le<std::int64_t>(bytes, kNotBeforeAt);
  life.expires.value = load_le<std::int64_t>(bytes, kExpiresAt);
  life.owner = load_le<std::uint32_t>(bytes, kOwnerAt);
  return true;
}

bool decode_record(const Digest& digest, std::span<const std::byte> bytes, Record& record) noexcept {
  if (bytes.size() != kRecordSize || load_le<std::uint64_t>(bytes, kCheckAt) != check_of(digest, bytes)) {
    return false;
  }
  if (load_le<std::uint8_t>(bytes, kVersionAt) != kRecordVersion ||
      load_le<std::uint16_t>(bytes, kSizeAt) != kRecordSize || load_le<std::uint16_t>(bytes, kZeroAt) != 0) {
    return false;
  }
  record.flags = load_le<std::uint8_t>(bytes, kFlagsAt);
  record.env = load_le<std::uint32_t>(bytes, kEnvAt);
  record.owner = load_le<std::uint32_t>(bytes, kOwnerAt);
  record.plan = load_le<std::uint32_t>(bytes, kPlanAt);
  record.scopes = load_le<std::uint32_t>(bytes, kScopesAt);
  record.name = load_le<std::uint32_t>(bytes, kNameAt);
  record.meta = load_le<std::uint32_t>(bytes, kMetaAt);
  record.bindings = load_le<std::uint32_t>(bytes, kBindingsAt);
  record.limits = load_le<std::uint32_t>(bytes, kLimitsAt);
  record.id = load_id(bytes, kIdAt);
  record.family = load_id(bytes, kFamilyAt);
  record.not_before.value = load_le<std::int64_t>(bytes, kNotBeforeAt);
  record.expires.value = load_le<std::int64_t>(bytes, kExpiresAt);
  record.suspended_until.value = load_le<std::int64_t>(bytes, kSuspendedUntilAt);
  return is_consistent(record);
}

}  // namespace apikey

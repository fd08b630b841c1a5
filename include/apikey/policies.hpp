// The region `policies` of node memory: what the configuration asks for, location by location, so that keyloader can
// say it without reading nginx.conf. Names only: no key, no pepper, no path of one.
//
// The region, version 1:
//   offset size meaning
//        0    8 sequence: odd while it is written, 0: nothing was ever written
//        8    8 number of the configuration
//       16    8 when it was written, microseconds since 1970
//       24    8 length of what follows the header; 0: it found no room
//       32    8 length that it needs
//       40    8 Fold64 of what follows, and of the number of the configuration
//       48   16 zero
//       64    … entries
// An entry: 2 tag · 2 length n · n value. A server is an entry `server` and all entries up to the next one; in it a
// location is an entry `location` and all up to the next one, likewise a line of scopes. Unknown tags are skipped.
//
// INVARIANT: one master writes at a time, or two of a binary upgrade; then the check tells. A reader copies first and
// looks at the copy, which may be anything.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "apikey/status.hpp"

namespace apikey {

inline constexpr std::uint32_t kPoliciesVersion = 1;
inline constexpr std::size_t kPoliciesHeaderSize = 64;
inline constexpr std::size_t kMinPoliciesSize = 256U << 10U;
inline constexpr std::size_t kMaxPoliciesSize = 16U << 20U;

enum class PolicyTag : std::uint16_t {
  server = 1,       // nothing
  server_name = 2,  // text, as it is written
  listen = 3,       // text: 0.0.0.0:8080
  location = 4,  // 1 PolicyPlace · 1 depth: 0 the server itself, 1 a location in it · 2 PolicyFlag · text: its name
  realm = 5,     // text
  store = 6,     // text: its name
  store_path = 7,    // text
  source = 8,        // text, as apikey_from is written
  scope_line = 9,    // 4 methods, a set of MethodBit
  scope = 10,        // text, of the scope line before it
  environment = 11,  // text
  // 1 LimitKind · 1 LimitBy · 6 zero · 8 amount or requests at once · 8 period ns · 8 burst · 8 place · text: name
  limit = 12,
  required_limit = 13,  // text: a name
  fail_limit = 14,      // 8 amount · 8 period ns · 8 burst
  except_methods = 15,  // 4 methods for which this limit_except counts, a set of MethodBit
};

enum class PolicyPlace : std::uint8_t {
  server = 0,  // outside of any location
  prefix = 1,
  exact = 2,         // location =
  first_prefix = 3,  // location ^~
  regex = 4,         // location ~
  regex_nocase = 5,  // location ~*
  named = 6,         // location @
  condition = 7,     // if
  limit_except = 8,
};
inline constexpr std::size_t kPolicyPlaceCount = 9;

enum PolicyFlag : std::uint16_t {
  kPolicyOn = 1U << 0U,        // it asks for keys
  kPolicyOptional = 1U << 1U,  // apikey … optional
  kPolicyAnyScope = 1U << 2U,
  kPolicyAnyEnvironment = 1U << 3U,
  kPolicySatisfyAny = 1U << 4U,
  kPolicyAllowsOnError = 1U << 5U,
  kPolicyDryRunLimits = 1U << 6U,
  kPolicyDryRunScopes = 1U << 7U,  // with kPolicyDryRunLimits: of everything
  kPolicyOwnContent = 1U << 8U,    // apikey_verify, apikey_whoami
  kPolicyBlocksAll = 1U << 9U,     // apikey_fail_limit block=all
  kPolicyDebugLog = 1U << 10U,     // nginx writes its headers to an error log at debug level
};

// Appends entries. What does not fit is counted all the same, so that an empty span tells how much is needed.
class PolicyWriter {
 public:
  explicit PolicyWriter(std::span<std::byte> out) noexcept : out_(out) {}

  void text(PolicyTag tag, std::string_view text) noexcept { entry(tag, {}, text); }
  void methods(PolicyTag tag, std::uint32_t methods) noexcept;
  void location(PolicyPlace place, std::uint8_t depth, std::uint16_t flags, std::string_view name) noexcept;
  // `fixed`: what stands before the text; both together are cut at 65535 bytes.
  void entry(PolicyTag tag, std::span<const std::byte> fixed, std::string_view text) noexcept;

  [[nodiscard]] std::size_t needed() const noexcept { return needed_; }

 private:
  void put(std::span<const std::byte> bytes) noexcept;
  std::span<std::byte> out_;
  std::size_t needed_ = 0;
};

struct PolicyLimitEntry {
  std::uint8_t kind = 0;  // LimitKind
  std::uint8_t by = 0;    // LimitBy
  std::uint64_t amount = 0;
  std::uint64_t period_ns = 0;
  std::uint64_t burst = 0;
  std::uint64_t place = 0;  // of a limit without a name of its own: LocationLimit
  std::string_view name;
};
void write_limit(PolicyWriter& writer, const PolicyLimitEntry& limit) noexcept;

struct PolicyEntry {
  PolicyTag tag{};
  std::span<const std::byte> value;  // as long as its tag asks for, at least

  [[nodiscard]] std::string_view text(std::size_t from = 0) const noexcept;
  // REQUIRES: a tag whose value begins so.
  [[nodiscard]] std::uint32_t methods() const noexcept;
  [[nodiscard]] PolicyPlace place() const noexcept;
  [[nodiscard]] std::uint8_t depth() const noexcept;
  [[nodiscard]] std::uint16_t flags() const noexcept;
  [[nodiscard]] std::string_view location_name() const noexcept;
  [[nodiscard]] PolicyLimitEntry limit() const noexcept;
};
// The next entry that this build knows. RETURNS: false at the end, and where what is left is damaged: then `rest` is
// not empty.
[[nodiscard]] bool next_policy(std::span<const std::byte>& rest, PolicyEntry& entry) noexcept;

// Bytes of a region for that much, with room to grow: a reload does not change it.
[[nodiscard]] std::uint64_t policies_size(std::size_t needed) noexcept;

// Puts one whole configuration into a region of at least kPoliciesHeaderSize bytes, 8-aligned.
void publish_policies(std::span<std::byte> region, std::span<const std::byte> entries, std::uint64_t configuration,
                      std::uint64_t wall_us) noexcept;

struct PoliciesRead {
  std::uint64_t configuration = 0;
  std::uint64_t written_us = 0;
  std::span<const std::byte> entries;  // in `out`
};
// Copies one whole configuration out of a region that others may be writing, into `out` of as many bytes as the region.
// RETURNS: absent where nothing was written, refused where it found no room, damaged for what contradicts itself.
Status read_policies(std::span<const std::byte> region, std::span<std::byte> out, PoliciesRead& read) noexcept;

}  // namespace apikey

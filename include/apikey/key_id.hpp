// Public identity of a key: `key_` + 20 base32 characters: 48 bits of milliseconds since 1970, then 52 random
// bits, in the alphabet 0-9a-v (RFC 4648 "base32hex", lower case), so that ids sort by time of creation.
// In a record the 100 bits stand in 13 bytes, most significant bit first, the last 4 bits zero.
// A family is named by the id of its first key.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace apikey {

inline constexpr std::string_view kKeyIdPrefix = "key_";
inline constexpr std::size_t kKeyIdTextLength = 24;

struct KeyId {
  std::array<std::uint8_t, 13> bytes{};
  friend constexpr auto operator<=>(const KeyId&, const KeyId&) = default;
};
static_assert(sizeof(KeyId) == 13);

// `random`: at least 7 bytes from a CSPRNG; the first 52 bits of it are used.
[[nodiscard]] KeyId make_key_id(std::uint64_t unix_ms, std::span<const std::uint8_t, 7> random) noexcept;
[[nodiscard]] bool parse_key_id(std::string_view text, KeyId& id) noexcept;
[[nodiscard]] std::array<char, kKeyIdTextLength> key_id_text(const KeyId& id) noexcept;

}  // namespace apikey

// The printed form of our keys: <prefix>_<env>_<secret><check>, e.g. ak_live_7F…Zq0a1b2c
//   prefix  2-16 of [a-z0-9]     env  1-16 of [a-z0-9]
//   secret  32 base62 characters (190 bits)
//   check    6 base62 characters: CRC-32 (zlib polynomial) of all that precedes, alphabet 0-9A-Za-z in that
//            order, most significant digit first, padded with '0'
// Called by keyloader to issue keys and by the module to refuse garbage before any look-up.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace apikey {

inline constexpr std::size_t kMinKeyLength = 8;  // of any key, imported ones included
inline constexpr std::size_t kMaxKeyLength = 256;
inline constexpr std::size_t kMinPrefixLength = 2;
inline constexpr std::size_t kMaxPrefixLength = 16;
inline constexpr std::size_t kMaxEnvLength = 16;
inline constexpr std::size_t kSecretLength = 32;
inline constexpr std::size_t kCheckLength = 6;
inline constexpr std::size_t kMaxOwnKeyLength = kMaxPrefixLength + 1 + kMaxEnvLength + 1 + kSecretLength + kCheckLength;

// Views into the text that was parsed.
struct KeyParts {
  std::string_view prefix;
  std::string_view env;
  std::string_view secret;
  std::string_view check;
};

[[nodiscard]] bool is_valid_prefix(std::string_view prefix) noexcept;
[[nodiscard]] bool is_valid_env(std::string_view env) noexcept;
[[nodiscard]] bool is_base62(std::string_view text) noexcept;

// True when the whole text has the form above, whatever its checksum is: the one test for "is this meant as a key of
// ours", in nginx and in keyloader. `sk_live_…` or `github_pat_…` of other lengths are other people's keys.
[[nodiscard]] bool has_own_form(std::string_view text) noexcept;

// True when form, length and checksum are right; then `parts` is filled.
[[nodiscard]] bool parse_key(std::string_view text, KeyParts& parts) noexcept;

// The six characters that belong behind `text`.
[[nodiscard]] std::array<char, kCheckLength> key_check(std::string_view text) noexcept;

// Writes a whole key. REQUIRES: valid prefix and env, 32 base62 characters in `secret`,
// out.size() >= kMaxOwnKeyLength. RETURNS: the part of `out` that was written.
std::string_view compose_key(std::string_view prefix, std::string_view env, std::string_view secret,
                             std::span<char> out) noexcept;

// True for 8-256 bytes that a header can carry: 0x21-0x7e and 0x80-0xff, no space, no control character.
[[nodiscard]] bool is_presentable(std::string_view text) noexcept;

// What may be shown of a key in a log or message: `ak_live_****` for our own form (right checksum or not), `****` for
// any other.
// REQUIRES: out.size() >= kMaxPrefixLength + kMaxEnvLength + 6.
std::string_view redact_key(std::string_view text, std::span<char> out) noexcept;

}  // namespace apikey

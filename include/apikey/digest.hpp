// What is stored instead of a key: SHA-256(key) or HMAC-SHA-256(pepper, key).
// Called per request by the adapter, and by keyloader when a key is issued or imported.
// Source: FIPS 180-4 (SHA-256), RFC 2104 (HMAC); computed by libcrypto.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "apikey/status.hpp"

namespace apikey {

struct Digest {
  std::array<std::uint8_t, 32> bytes{};
  friend constexpr auto operator<=>(const Digest&, const Digest&) = default;
};
static_assert(sizeof(Digest) == 32);

// Overwrites memory in a way the compiler cannot leave out.
void wipe(std::span<char> memory) noexcept;
void wipe(std::span<std::uint8_t> memory) noexcept;

inline constexpr std::size_t kMaxPepperIdLength = 32;  // [a-z0-9_-]
inline constexpr std::size_t kMinPepperLength = 16;    // bytes
inline constexpr std::size_t kMaxPepperLength = 1024;  // bytes

[[nodiscard]] bool is_valid_pepper_id(std::string_view id) noexcept;

// One way of turning a key into its digest. Trivially copyable; holds hash states, never the pepper itself.
// Its name, as it stands in a snapshot's meta: `sha256` or `hmac-sha256:<pepper id>`.
class DigestMethod {
 public:
  // Plain SHA-256.
  DigestMethod() noexcept;

  // REQUIRES: is_valid_pepper_id(id). The pepper may be wiped after the call.
  // RETURNS: bad_value for a pepper shorter than kMinPepperLength or longer than kMaxPepperLength.
  static Status with_pepper(std::string_view id, std::span<const std::uint8_t> pepper, DigestMethod& method) noexcept;

  [[nodiscard]] Digest operator()(std::string_view key) const noexcept;

  // Empty for plain SHA-256. LIFETIME: this object's.
  [[nodiscard]] std::string_view pepper_id() const noexcept;

  // True when `name` (`sha256`, `hmac-sha256:<id>`) means this method.
  [[nodiscard]] bool is_named(std::string_view name) const noexcept;

  // Compares what this machine's libcrypto computes through the low-level states used here with EVP.
  // Called once at start; `failed` means that no request may be decided.
  static Status self_test() noexcept;

 private:
  using State = std::array<std::uint8_t, 112>;  // a SHA256_CTX
  alignas(8) State inner_{};                    // state before the key's first byte
  alignas(8) State outer_{};                    // HMAC's second pass; unused without pepper
  std::array<char, kMaxPepperIdLength> id_{};
  std::uint8_t id_length_ = 0;
};

}  // namespace apikey

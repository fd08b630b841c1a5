// SipHash-2-4 with 64-bit output (Aumasson, Bernstein: "SipHash: a fast short-input PRF", 2012): keyed by the zone's
// random seed, so that nobody can choose names that meet in one slot. Written out because libcrypto offers it only
// behind EVP_MAC, which allocates.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace apikey {

using SipKey = std::array<std::uint64_t, 2>;

class SipHash {
 public:
  explicit SipHash(const SipKey& key) noexcept;
  void update(std::span<const std::byte> data) noexcept;
  [[nodiscard]] std::uint64_t finish() noexcept;

 private:
  void compress(std::uint64_t word) noexcept;
  std::uint64_t v0_, v1_, v2_, v3_;
  std::uint64_t pending_ = 0;  // bytes not yet compressed, little-endian
  std::uint64_t length_ = 0;
};

}  // namespace apikey

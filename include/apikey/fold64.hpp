// The 64-bit check value that stands behind every record, row and index bucket of a snapshot.
// It finds accidents (bit rot, a file overwritten in place), it is no protection against a forger: the seal is.
//
//   h = 0x9e3779b97f4a7c15 ^ length in bytes
//   for each 8 bytes, little-endian, the last word padded with zeros:
//     p = (word ^ h) * 0xa0761d6478bd642f   as a 128-bit product
//     h = low 64 bits of p ^ high 64 bits of p ^ rotl(word, 32)
//   Fold64(bytes) = h, and 1 where h would be 0, so that a zeroed page never checks.
// (The multiply-and-fold step is that of wyhash, https://github.com/wangyi-fudan/wyhash; the added word
// keeps a product with zero from swallowing its input.)
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace apikey {

class Fold64 {
 public:
  explicit constexpr Fold64(std::size_t total_bytes) noexcept : h_(kSeed ^ total_bytes) {}

  constexpr void word(std::uint64_t w) noexcept {
    __extension__ using Wide = unsigned __int128;
    const Wide product = static_cast<Wide>(w ^ h_) * kMultiplier;
    h_ = static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64) ^ ((w << 32) | (w >> 32));
  }

  // A whole number of words, except for the last call.
  void bytes(std::span<const std::byte> data) noexcept {
    while (data.size() >= 8) {
      std::uint64_t w;
      std::memcpy(&w, data.data(), 8);
      word(w);
      data = data.subspan(8);
    }
    if (!data.empty()) {
      std::uint64_t w = 0;
      std::memcpy(&w, data.data(), data.size());
      word(w);
    }
  }

  [[nodiscard]] constexpr std::uint64_t value() const noexcept { return h_ == 0 ? 1 : h_; }

 private:
  static constexpr std::uint64_t kSeed = 0x9e3779b97f4a7c15;
  static constexpr std::uint64_t kMultiplier = 0xa0761d6478bd642f;
  std::uint64_t h_;
};

[[nodiscard]] inline std::uint64_t fold64(std::span<const std::byte> data) noexcept {
  Fold64 fold(data.size());
  fold.bytes(data);
  return fold.value();
}

}  // namespace apikey

// SipHash-2-4, after the algorithm of the paper; checked against its vectors in the unit test.
// Called by the bucket table to name a slot. Never called with a secret of a client.
#include "apikey/siphash.hpp"

#include <bit>
#include <cstring>

namespace apikey {
namespace {

inline void sip_round(std::uint64_t& v0, std::uint64_t& v1, std::uint64_t& v2, std::uint64_t& v3) noexcept {
  v0 += v1;
  v1 = std::rotl(v1, 13) ^ v0;
  v0 = std::rotl(v0, 32);
  v2 += v3;
  v3 = std::rotl(v3, 16) ^ v2;
  v0 += v3;
  v3 = std::rotl(v3, 21) ^ v0;
  v2 += v1;
  v1 = std::rotl(v1, 17) ^ v2;
  v2 = std::rotl(v2, 32);
}

// As the processor has them: first byte lowest.
static_assert(std::endian::native == std::endian::little);
std::uint64_t load_word(std::span<const std::byte> data) noexcept {
  std::uint64_t word;
  std::memcpy(&word, data.data(), sizeof word);
  return word;
}

// Of less than 8 bytes.
std::uint64_t load_rest(std::span<const std::byte> data) noexcept {
  std::uint64_t word = 0;
  std::size_t at = 0;
  if (data.size() >= 4) {
    std::memcpy(&word, data.data(), 4);
    at = 4;
  }
  for (; at < data.size(); ++at) {
    word |= std::to_integer<std::uint64_t>(data[at]) << (8 * at);
  }
  return word;
}

}  // namespace

SipHash::SipHash(const SipKey& key) noexcept
    : v0_(key[0] ^ 0x736f6d6570736575),
      v1_(key[1] ^ 0x646f72616e646f6d),
      v2_(key[0] ^ 0x6c7967656e657261),
      v3_(key[1] ^ 0x7465646279746573) {}

inline void SipHash::compress(std::uint64_t word) noexcept {
  v3_ ^= word;
  sip_round(v0_, v1_, v2_, v3_);
  sip_round(v0_, v1_, v2_, v3_);
  v0_ ^= word;
}

void SipHash::update(std::span<const std::byte> data) noexcept {
  const auto filled = static_cast<unsigned>(8 * (length_ % 8));  // bits of `pending_`
  length_ += data.size();
  for (; data.size() >= 8; data = data.subspan(8)) {
    const std::uint64_t word = load_word(data);
    compress(pending_ | word << filled);
    pending_ = filled == 0 ? 0 : word >> (64 - filled);
  }
  const std::uint64_t rest = load_rest(data);
  pending_ |= rest << filled;
  if (filled != 0 && filled + 8 * data.size() >= 64) {
    compress(pending_);
    pending_ = rest >> (64 - filled);
  }
}

std::uint64_t SipHash::finish() noexcept {
  compress(pending_ | (length_ << 56));
  v2_ ^= 0xff;
  for (int i = 0; i < 4; ++i) {
    sip_round(v0_, v1_, v2_, v3_);
  }
  return v0_ ^ v1_ ^ v2_ ^ v3_;
}

}  // namespace apikey

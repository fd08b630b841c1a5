// SipHash-2-4, after the algorithm of the paper; checked against its vectors in the unit test.
// Called by the bucket table to name a slot. Never called with a secret of a client.
#include "apikey/siphash.hpp"

#include <bit>

namespace apikey {
namespace {

void sip_round(std::uint64_t& v0, std::uint64_t& v1, std::uint64_t& v2, std::uint64_t& v3) noexcept {
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

}  // namespace

SipHash::SipHash(const SipKey& key) noexcept
    : v0_(key[0] ^ 0x736f6d6570736575),
      v1_(key[1] ^ 0x646f72616e646f6d),
      v2_(key[0] ^ 0x6c7967656e657261),
      v3_(key[1] ^ 0x7465646279746573) {}

void SipHash::compress(std::uint64_t word) noexcept {
  v3_ ^= word;
  sip_round(v0_, v1_, v2_, v3_);
  sip_round(v0_, v1_, v2_, v3_);
  v0_ ^= word;
}

void SipHash::update(std::span<const std::byte> data) noexcept {
  for (const std::byte byte : data) {
    pending_ |= std::to_integer<std::uint64_t>(byte) << (8 * (length_ % 8));
    ++length_;
    if (length_ % 8 == 0) {
      compress(pending_);
      pending_ = 0;
    }
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

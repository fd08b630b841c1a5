// siphash.cpp: the vectors of the SipHash reference (key 00..0f, message 00..n-1), whole and in pieces.
#include "apikey/siphash.hpp"

#include "cmocka_cpp.hpp"
#include "expect_text.hpp"

using apikey::SipHash;
using apikey::SipKey;

namespace {

constexpr SipKey kKey = {0x0706050403020100, 0x0f0e0d0c0b0a0908};

std::array<std::byte, 64> message() {
  std::array<std::byte, 64> bytes;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::byte>(i);
  }
  return bytes;
}

std::uint64_t hash(const SipKey& key, std::span<const std::byte> data) {
  SipHash sip(key);
  sip.update(data);
  return sip.finish();
}

void reference_vectors(void**) {
  constexpr std::pair<std::size_t, std::uint64_t> kVectors[] = {
      {0, 0x726fdb47dd0e0e31},  {1, 0x74f839c593dc67fd},  {7, 0xab0200f58b01d137},  {8, 0x93f5f5799a932462},
      {15, 0xa129ca6149be45e5}, {16, 0x3f2acc7f57c29bdb}, {31, 0x32d892fad841c342}, {63, 0x958a324ceb064572},
  };
  const auto bytes = message();
  for (const auto& [length, expected] : kVectors) {
    assert_true(hash(kKey, std::span(bytes).first(length)) == expected);
  }
}

void pieces_hash_like_the_whole(void**) {
  const auto bytes = message();
  const std::uint64_t whole = hash(kKey, bytes);
  for (std::size_t first = 0; first <= bytes.size(); ++first) {
    for (std::size_t second = first; second <= bytes.size(); second += 5) {
      SipHash sip(kKey);
      sip.update(std::span(bytes).first(first));
      sip.update(std::span(bytes).subspan(first, second - first));
      sip.update(std::span(bytes).subspan(second));
      assert_true(sip.finish() == whole);
    }
  }
}

void another_key_is_another_hash(void**) {
  const auto bytes = message();
  assert_true(hash(kKey, bytes) != hash({kKey[0] ^ 1, kKey[1]}, bytes));
  assert_true(hash(kKey, bytes) != hash({kKey[0], kKey[1] ^ 1}, bytes));
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(reference_vectors),
      cmocka_unit_test(pieces_hash_like_the_whole),
      cmocka_unit_test(another_key_is_another_hash),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}

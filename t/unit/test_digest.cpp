// digest.cpp: vectors of FIPS 180 and RFC 4231, peppers of every length, names, wiping.
#include "apikey/digest.hpp"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "apikey/meta.hpp"
#include "cmocka_cpp.hpp"
#include "expect_text.hpp"

using apikey::Digest;
using apikey::DigestMethod;
using apikey::StatusCode;

namespace {

void expect_digest(const Digest& digest, std::string_view hex) {
  std::array<char, 64> text;
  apikey::to_hex(digest.bytes, text);
  expect_text({text.data(), text.size()}, hex);
}

DigestMethod peppered(std::span<const std::uint8_t> pepper) {
  DigestMethod method;
  assert_true(DigestMethod::with_pepper("2026", pepper, method).ok());
  return method;
}

void sha256_vectors(void**) {
  const DigestMethod sha256;
  expect_digest(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  expect_digest(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  expect_digest(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  expect_digest(sha256("ak_live_0123456789ABCDEFGHIJKLMNOPQRSTUV"),
                "2a2e0937b9a68023b80bde4bf657d55658b61e7f24020130214b12d6f27e549a");
}

// RFC 4231, test cases 1, 3, 4 and 6 (the others have keys shorter than a pepper may be, or a cut-off result).
void hmac_vectors(void**) {
  std::array<std::uint8_t, 131> key;
  key.fill(0x0b);
  expect_digest(peppered(std::span(key).first(20))("Hi There"),
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  key.fill(0xaa);
  expect_digest(peppered(std::span(key).first(20))(std::string(50, '\xdd')),
                "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe");
  for (std::size_t i = 0; i < 25; ++i) {
    key[i] = static_cast<std::uint8_t>(i + 1);
  }
  expect_digest(peppered(std::span(key).first(25))(std::string(50, '\xcd')),
                "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b");
  key.fill(0xaa);
  expect_digest(peppered(key)("Test Using Larger Than Block-Size Key - Hash Key First"),
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

void every_length_agrees_with_libcrypto(void**) {
  std::array<std::uint8_t, 200> pepper;
  for (std::size_t i = 0; i < pepper.size(); ++i) {
    pepper[i] = static_cast<std::uint8_t>(i * 11);
  }
  const std::string text(256, 'k');
  for (std::size_t size = apikey::kMinPepperLength; size <= pepper.size(); ++size) {
    const DigestMethod method = peppered(std::span(pepper).first(size));
    const std::size_t length = (size * 37) % (text.size() + 1);
    Digest expected;
    unsigned written = 0;
    // HMAC() wants bytes where this project has characters.
    const std::vector<unsigned char> bytes(length + 1, 'k');
    assert_non_null(HMAC(EVP_sha256(), pepper.data(), static_cast<int>(size), bytes.data(), length,
                         expected.bytes.data(), &written));
    assert_true(method(std::string_view(text.data(), length)) == expected);
  }
}

void the_pepper_is_needed_only_once(void**) {
  std::array<std::uint8_t, 32> pepper;
  pepper.fill(7);
  const DigestMethod method = peppered(pepper);
  const Digest before = method("some key");
  apikey::wipe(pepper);
  assert_true(std::all_of(pepper.begin(), pepper.end(), [](std::uint8_t byte) { return byte == 0; }));
  assert_true(method("some key") == before);
  // Nothing of it may stand in what is kept, neither as it was nor combined with HMAC's pads.
  std::array<std::uint8_t, sizeof(DigestMethod)> image;
  std::memcpy(image.data(), &method, sizeof method);
  for (const std::uint8_t byte : std::array<std::uint8_t, 3>{0x07, 0x07 ^ 0x36, 0x07 ^ 0x5c}) {
    const auto found = std::search_n(image.begin(), image.end(), 8, byte);
    assert_true(found == image.end());
  }
  const DigestMethod copy = method;
  assert_true(copy("some key") == before);
}

void pepper_lengths_have_bounds(void**) {
  const std::vector<std::uint8_t> bytes(apikey::kMaxPepperLength + 1, 1);
  DigestMethod method;
  const auto code = [&](std::size_t size) {
    return DigestMethod::with_pepper("p", std::span(bytes).first(size), method).code;
  };
  assert_true(code(0) == StatusCode::bad_value);
  assert_true(code(apikey::kMinPepperLength - 1) == StatusCode::bad_value);
  assert_true(method.pepper_id().empty());
  assert_true(code(apikey::kMinPepperLength) == StatusCode::ok);
  assert_true(code(apikey::kMaxPepperLength) == StatusCode::ok);
  assert_true(code(apikey::kMaxPepperLength + 1) == StatusCode::bad_value);
}

void methods_know_their_names(void**) {
  const DigestMethod plain;
  expect_text(plain.pepper_id(), "");
  assert_true(plain.is_named("sha256"));
  assert_false(plain.is_named("sha25"));
  assert_false(plain.is_named("hmac-sha256:"));
  assert_false(plain.is_named("hmac-sha256:2026"));

  std::array<std::uint8_t, 16> pepper{};
  const DigestMethod method = peppered(pepper);
  expect_text(method.pepper_id(), "2026");
  assert_true(method.is_named("hmac-sha256:2026"));
  assert_false(method.is_named("hmac-sha256:202"));
  assert_false(method.is_named("hmac-sha256:20260"));
  assert_false(method.is_named("sha256"));
  assert_false(method.is_named("2026"));
}

void pepper_ids(void**) {
  const std::string longest(apikey::kMaxPepperIdLength, 'a');
  const std::string too_long = longest + "a";
  for (const std::string_view good : {"a", "2026", "old-one_2", longest.c_str()}) {
    assert_true(apikey::is_valid_pepper_id(good));
  }
  for (const std::string_view bad : {"", "A", "a b", "a:b", "../a", "a/b", too_long.c_str()}) {
    assert_false(apikey::is_valid_pepper_id(bad));
  }
  DigestMethod method;
  std::array<std::uint8_t, 16> pepper{};
  assert_true(DigestMethod::with_pepper(longest, pepper, method).ok());
  expect_text(method.pepper_id(), longest);
}

void the_self_test_passes(void**) { assert_true(DigestMethod::self_test().ok()); }

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(sha256_vectors),
      cmocka_unit_test(hmac_vectors),
      cmocka_unit_test(every_length_agrees_with_libcrypto),
      cmocka_unit_test(the_pepper_is_needed_only_once),
      cmocka_unit_test(pepper_lengths_have_bounds),
      cmocka_unit_test(methods_know_their_names),
      cmocka_unit_test(pepper_ids),
      cmocka_unit_test(the_self_test_passes),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}

// key_form.cpp: the checksum against zlib's, the form at its bounds, every small change of a key refused.
#include "apikey/key_form.hpp"

#include <string>

#include "cmocka_cpp.hpp"
#include "expect_text.hpp"

using apikey::KeyParts;
using apikey::parse_key;

namespace {

// Python: zlib.crc32(text), then six base62 digits.
constexpr std::string_view kSecret = "0123456789ABCDEFGHIJKLMNOPQRSTUV";
constexpr std::string_view kKey = "ak_live_0123456789ABCDEFGHIJKLMNOPQRSTUV06nxXO";
constexpr std::string_view kLongestKey = "abcdefghij012345_abcdefghij012345_0123456789ABCDEFGHIJKLMNOPQRSTUV187i8Z";
constexpr std::string_view kShortestKey = "ab_0_0123456789ABCDEFGHIJKLMNOPQRSTUV1HOX8R";

bool is_key(std::string_view text) {
  KeyParts parts;
  return parse_key(text, parts);
}

std::string with_check(std::string text) {
  const auto check = apikey::key_check(text);
  return text.append(check.begin(), check.end());
}

void checks_are_those_of_zlib(void**) {
  const auto expect_crc = [](std::string_view text, std::string_view expected) {
    const auto check = apikey::key_check(text);
    expect_text({check.data(), check.size()}, expected);
  };
  expect_crc("123456789", "3jZRME");  // 0xcbf43926, the check value of every CRC catalogue
  expect_crc("", "000000");
  expect_crc("16660", "000Gcv");  // padded
}

void keys_are_composed_and_parsed(void**) {
  std::array<char, apikey::kMaxOwnKeyLength> out;
  expect_text(apikey::compose_key("ak", "live", kSecret, out), kKey);
  expect_text(apikey::compose_key("ab", "0", kSecret, out), kShortestKey);
  expect_text(apikey::compose_key("abcdefghij012345", "abcdefghij012345", kSecret, out), kLongestKey);
  assert_int_equal(kLongestKey.size(), apikey::kMaxOwnKeyLength);

  KeyParts parts;
  assert_true(parse_key(kKey, parts));
  expect_text(parts.prefix, "ak");
  expect_text(parts.env, "live");
  expect_text(parts.secret, kSecret);
  expect_text(parts.check, "06nxXO");
  assert_true(is_key(kLongestKey));
  assert_true(is_key(kShortestKey));
}

// A CRC finds every error within 32 bits in a row, so every changed, added or lost character.
void every_small_change_is_refused(void**) {
  std::string key(kKey);
  for (std::size_t i = 0; i < key.size(); ++i) {
    for (int byte = 0; byte < 256; ++byte) {
      std::string changed = key;
      changed[i] = static_cast<char>(byte);
      assert_int_equal(is_key(changed), changed == key);
    }
    std::string without = key;
    without.erase(i, 1);
    assert_false(is_key(without));
    std::string with = key;
    with.insert(i, 1, 'a');
    assert_false(is_key(with));
    assert_false(is_key(kKey.substr(0, i)));
  }
  assert_false(is_key(key + "0"));
}

void a_refused_key_leaves_the_parts_alone(void**) {
  KeyParts parts{"p", "e", "s", "c"};
  assert_false(parse_key("ak_live_0123456789ABCDEFGHIJKLMNOPQRSTUV06nxXP", parts));
  expect_text(parts.prefix, "p");
  expect_text(parts.check, "c");
}

void wrong_forms_with_a_right_checksum_are_refused(void**) {
  const std::string secret(kSecret);
  for (const std::string& text :
       {"a_live_" + secret, "abcdefghij0123456_live_" + secret, "Ak_live_" + secret, "ak__" + secret,
        "ak_abcdefghij0123456_" + secret, "ak_Live_" + secret, "ak-live_" + secret, "ak_live_x_" + secret,
        "_ak_live_" + secret, "ak_live_" + secret + "0", "ak_live_" + secret.substr(1)}) {
    assert_false(is_key(with_check(text)));
  }
  assert_true(is_key(with_check("ak_live_" + secret)));
}

void labels(void**) {
  for (const std::string_view good : {"ak", "a1", "0123456789abcdef"}) {
    assert_true(apikey::is_valid_prefix(good));
  }
  for (const std::string_view bad : {"", "a", "0123456789abcdefg", "AK", "a_b", "a-b", "\xc3\xa4x"}) {
    assert_false(apikey::is_valid_prefix(bad));
  }
  assert_true(apikey::is_valid_env("t"));
  assert_true(apikey::is_valid_env("0123456789abcdef"));
  assert_false(apikey::is_valid_env(""));
  assert_false(apikey::is_valid_env("0123456789abcdefg"));
  assert_true(apikey::is_base62("azAZ09"));
  assert_false(apikey::is_base62("a+b"));
}

void shape_and_form(void**) {
  assert_true(apikey::has_own_form(kKey));
  assert_true(apikey::has_own_form("ak_live_0123456789ABCDEFGHIJKLMNOPQRSTUVwrong1"));
  for (const std::string_view foreign : {
           "",
           "ak_live_",
           "sk_live_4eC39HqLyjWDarjtT1zdp7dc",
           "sk_live_51HxYz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
           "sb_secret_0123456789abcdefghij0A_1b2c3d4e",
           "github_pat_11ABCDEFG0123456789abc_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvw",
           "acme_prod_0123456789abcdef0123456789abcdef",
           "eyJhbGciOiJIUzI1NiJ9.e30.x_y_z",
           "ak_live_0123456789ABCDEFGHIJKLMNOPQRSTUV06nxX",    // one short of a key
           "ak_live_0123456789ABCDEFGHIJKLMNOPQRSTUV06nxXOO",  // one too long
           "ak_live_0123456789ABCDEFGHIJKLMNOPQRSTUV06nx_O",
           "AK_live_0123456789ABCDEFGHIJKLMNOPQRSTUV06nxXO",
           "a_live_0123456789ABCDEFGHIJKLMNOPQRSTUV06nxXO",
           "ak__0123456789ABCDEFGHIJKLMNOPQRSTUV06nxXO",
           " ak_live_0123456789ABCDEFGHIJKLMNOPQRSTUV06nxXO",
       }) {
    assert_false(apikey::has_own_form(foreign));
  }
}

void presentable(void**) {
  assert_false(apikey::is_presentable(std::string(7, 'a')));
  assert_true(apikey::is_presentable(std::string(8, 'a')));
  assert_true(apikey::is_presentable(std::string(256, '\xff')));
  assert_false(apikey::is_presentable(std::string(257, 'a')));
  for (int byte = 0; byte < 256; ++byte) {
    const std::string text(8, static_cast<char>(byte));
    assert_int_equal(apikey::is_presentable(text), byte > 0x20 && byte != 0x7f);
  }
}

void redaction_shows_no_secret(void**) {
  std::array<char, apikey::kMaxPrefixLength + apikey::kMaxEnvLength + 6> out;
  expect_text(apikey::redact_key(kKey, out), "ak_live_****");
  expect_text(apikey::redact_key(kLongestKey, out), "abcdefghij012345_abcdefghij012345_****");
  expect_text(apikey::redact_key("ak_live_0123456789ABCDEFGHIJKLMNOPQRSTUVwrong1", out), "ak_live_****");
  // Somebody else's key: what looks like prefix and environment may be the secret.
  expect_text(apikey::redact_key("s3cr3t_s3cr3t_s3cr3t", out), "****");
  expect_text(apikey::redact_key("", out), "****");
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(checks_are_those_of_zlib),
      cmocka_unit_test(keys_are_composed_and_parsed),
      cmocka_unit_test(every_small_change_is_refused),
      cmocka_unit_test(a_refused_key_leaves_the_parts_alone),
      cmocka_unit_test(wrong_forms_with_a_right_checksum_are_refused),
      cmocka_unit_test(labels),
      cmocka_unit_test(shape_and_form),
      cmocka_unit_test(presentable),
      cmocka_unit_test(redaction_shows_no_secret),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}

// meta.cpp: what must be there, what a value looks like, and that unknown names do no harm.
#include "apikey/meta.hpp"

#include <string>
#include <vector>

#include "cmocka_cpp.hpp"
#include "expect_text.hpp"

using apikey::check_meta;
using apikey::Meta;
using apikey::set_meta;
using apikey::StatusCode;

namespace {

using Pair = std::pair<std::string_view, std::string_view>;

constexpr Pair kRequired[] = {
    {"builder", "keyloader 0.1.0"},
    {"created", "1700000000"},
    {"digests", "hmac-sha256:2026 sha256"},
    {"format", "1"},
    {"generation", "17"},
    {"keys", "0"},
    {"registry_id", "000102030405060708090a0b0c0d0e0f"},
};

Meta whole(std::string_view but = "") {
  Meta meta;
  for (const auto& [name, value] : kRequired) {
    if (name != but) {
      assert_true(set_meta(meta, name, value).ok());
    }
  }
  return meta;
}

StatusCode code_of(std::string_view name, std::string_view value) {
  Meta meta;
  return set_meta(meta, name, value).code;
}

void a_whole_meta(void**) {
  Meta meta = whole();
  assert_true(check_meta(meta).ok());
  assert_int_equal(meta.format, 1);
  assert_int_equal(meta.registry_id[15], 15);
  assert_int_equal(meta.generation, 17);
  assert_int_equal(meta.created.value, 1700000000);
  expect_text(meta.builder, "keyloader 0.1.0");
  assert_int_equal(meta.keys, 0);
  assert_int_equal(meta.digest_count, 2);
  expect_text(meta.digests[0], "hmac-sha256:2026");
  expect_text(meta.digests[1], "sha256");
  assert_false(meta.allow_shrink);
  assert_int_equal(meta.rolled_back_to, 0);
  assert_false(meta.has_base);
}

void nothing_required_may_be_missing(void**) {
  for (const auto& [name, value] : kRequired) {
    Meta meta = whole(name);
    assert_true(check_meta(meta).code == StatusCode::damaged);
  }
}

void optional_names(void**) {
  Meta meta = whole();
  assert_true(set_meta(meta, "allow_shrink", "1").ok());
  assert_true(set_meta(meta, "rolled_back_to", "16").ok());
  const std::string hash(64, 'a');
  assert_true(set_meta(meta, "base", hash).ok());
  assert_true(check_meta(meta).ok());
  assert_true(meta.allow_shrink && meta.has_base);
  assert_int_equal(meta.rolled_back_to, 16);
  assert_int_equal(meta.base[31], 0xaa);
  // A rollback goes back.
  assert_true(set_meta(meta, "rolled_back_to", "17").ok());
  assert_true(check_meta(meta).code == StatusCode::damaged);
}

Meta counted(std::string_view keys, std::string_view added, std::string_view removed) {
  Meta meta = whole();
  assert_true(set_meta(meta, "keys", keys).ok());
  if (!added.empty()) assert_true(set_meta(meta, "added", added).ok());
  if (!removed.empty()) assert_true(set_meta(meta, "removed", removed).ok());
  return meta;
}

StatusCode code_of_meta(Meta meta) { return check_meta(meta).code; }

void keys_are_what_was_added_less_what_was_removed(void**) {
  assert_false(whole().has_added);
  assert_int_equal(code_of_meta(counted("4", "10", "6")), StatusCode::ok);
  assert_int_equal(code_of_meta(counted("0", "0", "0")), StatusCode::ok);
  assert_int_equal(code_of_meta(counted("0", "18446744073709551615", "18446744073709551615")), StatusCode::ok);
  const Meta meta = counted("4", "10", "6");
  assert_true(meta.has_added && meta.has_removed);
  assert_int_equal(meta.added, 10);
  assert_int_equal(meta.removed, 6);
  for (const Meta& bad : {counted("5", "10", "6"), counted("3", "10", "6"), counted("4", "10", ""),
                          counted("4", "", "6"), counted("4", "2", "18446744073709551614")}) {
    assert_int_equal(code_of_meta(bad), StatusCode::damaged);
  }
}

void required_features(void**) {
  Meta meta = whole();
  assert_int_equal(meta.feature_count, 0);
  assert_true(set_meta(meta, "requires", "deny max-use").ok());
  assert_int_equal(meta.feature_count, 2);
  expect_text(meta.features[0], "deny");
  expect_text(meta.features[1], "max-use");
  assert_true(set_meta(meta, "requires", "").ok());
  assert_int_equal(meta.feature_count, 0);
  assert_true(set_meta(meta, "requires", "a b c d e f g h i j k l m n o p").ok());
  assert_int_equal(meta.feature_count, apikey::kMaxFeatures);
  expect_text(meta.features[15], "p");
}

void unknown_names_are_ignored(void**) {
  assert_true(code_of("colour", "\xff") == StatusCode::ok);
  assert_true(code_of("", "") == StatusCode::ok);
  assert_true(code_of("Format", "9") == StatusCode::ok);
}

void another_format_is_unsupported(void**) {
  assert_true(code_of("format", "1") == StatusCode::ok && code_of("format", "2") == StatusCode::ok);
  assert_true(code_of("format", "3") == StatusCode::unsupported);
  assert_true(code_of("format", "18446744073709551615") == StatusCode::unsupported);
  assert_true(code_of("format", "0") == StatusCode::damaged);
  assert_true(code_of("format", "one") == StatusCode::damaged);
}

constexpr std::string_view kHead = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

Meta of_format(std::string_view format, const std::vector<Pair>& more) {
  Meta meta = whole();
  for (const auto& [name, value] : more) {
    assert_true(set_meta(meta, name, value).ok());
  }
  assert_true(set_meta(meta, "format", format).ok());
  return meta;
}

void names_of_format_2(void**) {
  const std::vector<Pair> all = {{"hash_seed", "000102030405060708090a0b0c0d0e0f"},
                                 {"name", "eu-west_1"},
                                 {"audit_seq", "18446744073709551615"},
                                 {"audit_head", kHead}};
  Meta meta = of_format("2", all);
  assert_true(check_meta(meta).ok());
  assert_int_equal(meta.format, 2);
  assert_int_equal(meta.hash_seed[15], 15);
  expect_text(meta.name, "eu-west_1");
  assert_true(meta.audit_seq == UINT64_MAX && meta.has_audit_head);
  assert_int_equal(meta.audit_head[31], 0xff);
  assert_int_equal(code_of_meta(of_format("2", {})), StatusCode::ok);
  assert_int_equal(code_of_meta(of_format("2", {{"audit_seq", "7"}})), StatusCode::damaged);
  assert_int_equal(code_of_meta(of_format("2", {{"audit_head", kHead}})), StatusCode::damaged);
  // In a file of format 1 nobody promised anything by these names.
  meta = of_format("1", all);
  assert_true(check_meta(meta).ok());
  assert_true(meta.name.empty() && meta.hash_seed == apikey::HashSeed{} && meta.audit_seq == 0);
  assert_false(meta.has_audit_head);
}

void values_of_format_2_that_do_not_parse(void**) {
  const std::vector<Pair> bad = {
      {"hash_seed", ""},
      {"hash_seed", "00000000000000000000000000000000"},
      {"hash_seed", "000102030405060708090A0B0C0D0E0F"},
      {"hash_seed", "000102030405060708090a0b0c0d0e"},
      {"name", ""},
      {"name", "Upper"},
      {"name", "a b"},
      {"name", "0123456789012345678901234567890123"},
      {"audit_seq", "0"},
      {"audit_seq", "01"},
      {"audit_seq", "18446744073709551616"},
      {"audit_head", "00"},
      {"audit_head", ""},
  };
  for (const auto& one : bad) {
    assert_int_equal(code_of_meta(of_format("2", {one})), StatusCode::damaged);
    assert_int_equal(code_of_meta(of_format("1", {one})), StatusCode::ok);
  }
}

void values_that_do_not_parse(void**) {
  const std::vector<Pair> bad = {
      {"format", ""},
      {"format", "01"},
      {"registry_id", ""},
      {"registry_id", "000102030405060708090a0b0c0d0e0"},
      {"registry_id", "000102030405060708090A0B0C0D0E0F"},
      {"registry_id", "000102030405060708090a0b0c0d0e0g"},
      {"generation", "0"},
      {"generation", "-1"},
      {"generation", "+1"},
      {"generation", " 1"},
      {"generation", "1 "},
      {"generation", "18446744073709551616"},
      {"created", "0"},
      {"created", "9223372036854775808"},
      {"builder", "a\nb"},
      {"builder", "\xc3\xa4"},
      {"keys", ""},
      {"keys", "00"},
      {"keys", "1e3"},
      {"digests", ""},
      {"digests", " sha256"},
      {"digests", "sha256 "},
      {"digests", "a  b"},
      {"digests", "a b c d e"},
      {"digests", "sha256 sha256"},
      {"digests", "a\tb"},
      {"allow_shrink", "0"},
      {"allow_shrink", ""},
      {"rolled_back_to", "0"},
      {"base", "00"},
      {"added", ""},
      {"added", "-1"},
      {"added", "01"},
      {"removed", "1 "},
      {"removed", "18446744073709551616"},
      {"requires", " deny"},
      {"requires", "deny deny"},
      {"requires", "deny  windows"},
      {"requires", "d\teny"},
      {"requires", "a b c d e f g h i j k l m n o p q"},
  };
  for (const auto& [name, value] : bad) {
    assert_true(code_of(name, value) == StatusCode::damaged);
  }
}

void four_digest_methods(void**) {
  Meta meta;
  assert_true(set_meta(meta, "digests", "a b c d").ok());
  assert_int_equal(meta.digest_count, 4);
  expect_text(meta.digests[3], "d");
}

void hex_both_ways(void**) {
  std::array<std::uint8_t, 256> bytes;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::uint8_t>(i);
  }
  std::array<char, 512> text;
  apikey::to_hex(bytes, text);
  expect_text({text.data(), 6}, "000102");
  expect_text({text.data() + 506, 6}, "fdfeff");
  std::array<std::uint8_t, 256> back{};
  assert_true(apikey::from_hex({text.data(), text.size()}, back));
  assert_true(back == bytes);
  std::array<std::uint8_t, 1> one{};
  for (const std::string_view bad : {"", "0", "000", "0G", "F0", "0x", " 0"}) {
    assert_false(apikey::from_hex(bad, one));
  }
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(a_whole_meta),
      cmocka_unit_test(nothing_required_may_be_missing),
      cmocka_unit_test(optional_names),
      cmocka_unit_test(keys_are_what_was_added_less_what_was_removed),
      cmocka_unit_test(required_features),
      cmocka_unit_test(unknown_names_are_ignored),
      cmocka_unit_test(another_format_is_unsupported),
      cmocka_unit_test(names_of_format_2),
      cmocka_unit_test(values_of_format_2_that_do_not_parse),
      cmocka_unit_test(values_that_do_not_parse),
      cmocka_unit_test(four_digest_methods),
      cmocka_unit_test(hex_both_ways),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}

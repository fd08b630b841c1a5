// key_id.cpp: a worked example, order by time, and that only one text stands for an id.
#include "apikey/key_id.hpp"

#include <string>

#include "cmocka_cpp.hpp"
#include "expect_text.hpp"

using apikey::KeyId;

namespace {

constexpr std::array<std::uint8_t, 7> kRandom = {0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x3f};
// Python: n = 0x0123456789ab << 52 | 0xfedcba9876543; twenty digits of 5 bits.
constexpr std::string_view kText = "key_04hkaps9lfvdpekoepa3";

std::string text_of(const KeyId& id) {
  const auto text = apikey::key_id_text(id);
  return {text.begin(), text.end()};
}

void a_worked_example(void**) {
  const KeyId id = apikey::make_key_id(0x0123456789ab, kRandom);
  constexpr std::array<std::uint8_t, 13> kBytes = {0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xfe,
                                                   0xdc, 0xba, 0x98, 0x76, 0x54, 0x30};
  assert_true(id.bytes == kBytes);
  expect_text(text_of(id), kText);
  KeyId parsed;
  assert_true(apikey::parse_key_id(kText, parsed));
  assert_true(parsed == id);
}

void ends_of_the_range(void**) {
  std::array<std::uint8_t, 7> random{};
  expect_text(text_of(apikey::make_key_id(0, random)), "key_00000000000000000000");
  random.fill(0xff);
  expect_text(text_of(apikey::make_key_id((1ULL << 48) - 1, random)), "key_vvvvvvvvvvvvvvvvvvvv");
}

void ids_sort_by_time_as_bytes_and_as_text(void**) {
  std::array<std::uint8_t, 7> late{};
  for (std::uint64_t ms = 1; ms < (1ULL << 48); ms = ms * 3 + 1) {
    const KeyId before = apikey::make_key_id(ms - 1, kRandom);
    const KeyId after = apikey::make_key_id(ms, late);
    assert_true(before < after);
    assert_true(text_of(before) < text_of(after));
  }
}

void every_bit_goes_there_and_back(void**) {
  for (std::size_t bit = 0; bit < 100; ++bit) {
    KeyId id;
    id.bytes[bit / 8] = static_cast<std::uint8_t>(0x80 >> (bit % 8));
    KeyId parsed;
    assert_true(apikey::parse_key_id(text_of(id), parsed));
    assert_true(parsed == id);
  }
}

void other_texts_are_refused(void**) {
  KeyId id = apikey::make_key_id(1, kRandom);
  const KeyId before = id;
  const std::string good(kText);
  for (const std::string& bad : {std::string(), good.substr(1), good + "0", good.substr(0, good.size() - 1),
                                 "KEY_" + good.substr(4), "kez_" + good.substr(4)}) {
    assert_false(apikey::parse_key_id(bad, id));
  }
  for (int byte = 0; byte < 256; ++byte) {
    std::string text = good;
    text.back() = static_cast<char>(byte);
    const bool is_digit = (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'v');
    KeyId parsed;
    assert_int_equal(apikey::parse_key_id(text, parsed), is_digit);
  }
  assert_true(id == before);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(a_worked_example),
      cmocka_unit_test(ends_of_the_range),
      cmocka_unit_test(ids_sort_by_time_as_bytes_and_as_text),
      cmocka_unit_test(every_bit_goes_there_and_back),
      cmocka_unit_test(other_texts_are_refused),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}

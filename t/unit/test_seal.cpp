// The seal page: round trip, and every way of being no seal.
#include "apikey/seal.hpp"

#include <string>
#include <vector>

#include "cmocka_cpp.hpp"

using apikey::Seal;
using apikey::StatusCode;

namespace {

using Bytes = std::vector<std::byte>;

Seal some_seal(std::uint32_t page_size, std::uint32_t signatures) {
  Seal seal;
  seal.page_size = page_size;
  seal.length = std::uint64_t{4} * page_size;
  seal.sha256.fill(0xab);
  seal.generation = 77;
  seal.base.fill(0xcd);
  seal.signature_count = signatures;
  for (std::uint32_t i = 0; i < signatures; ++i) {
    seal.signatures[i].key_id.fill(static_cast<std::uint8_t>(i + 1));
    seal.signatures[i].bytes.fill(static_cast<std::uint8_t>(i + 101));
  }
  return seal;
}

Bytes file_with(const Seal& seal) {
  Bytes file(seal.length, std::byte{0x11});
  apikey::encode_seal(seal, std::span(file).subspan(file.size() - seal.page_size));
  return file;
}

void comes_back_as_it_was(void** /*state*/) {
  for (const std::uint32_t page_size : {4096U, 8192U, 16384U, 32768U}) {
    for (std::uint32_t signatures = 0; signatures <= apikey::kMaxSignatures; ++signatures) {
      const Seal seal = some_seal(page_size, signatures);
      const Bytes file = file_with(seal);
      Seal found;
      assert_true(apikey::decode_seal(file, found).ok());
      assert_int_equal(found.page_size, page_size);
      assert_int_equal(found.length, seal.length);
      assert_int_equal(found.generation, 77);
      assert_true(found.sha256 == seal.sha256 && found.base == seal.base);
      assert_int_equal(found.signature_count, signatures);
      for (std::uint32_t i = 0; i < signatures; ++i) {
        assert_true(found.signatures[i].key_id == seal.signatures[i].key_id);
        assert_true(found.signatures[i].bytes == seal.signatures[i].bytes);
      }
    }
  }
}

void stands_where_the_page_says(void** /*state*/) {
  const Bytes file = file_with(some_seal(4096, 1));
  const std::byte* page = file.data() + 3 * 4096;
  assert_memory_equal(page, "AKSEAL01", 8);
  assert_int_equal(std::to_integer<int>(page[8]), 2);
  assert_int_equal(std::to_integer<int>(page[13]), 0x10);  // 4096
  assert_int_equal(std::to_integer<int>(page[17]), 0x40);  // 16384
  assert_int_equal(std::to_integer<int>(page[24]), 0xab);
  assert_int_equal(std::to_integer<int>(page[56]), 77);
  assert_int_equal(std::to_integer<int>(page[64]), 0xcd);
  assert_int_equal(std::to_integer<int>(page[96]), 1);
  assert_int_equal(std::to_integer<int>(page[128]), 1);
  assert_int_equal(std::to_integer<int>(page[160]), 101);
}

StatusCode code_of(const Bytes& file) {
  Seal seal;
  return apikey::decode_seal(file, seal).code;
}

void refuses_what_is_no_seal(void** /*state*/) {
  assert_int_equal(code_of({}), StatusCode::damaged);
  assert_int_equal(code_of(Bytes(10)), StatusCode::damaged);
  assert_int_equal(code_of(Bytes(4096)), StatusCode::damaged);
  assert_int_equal(code_of(Bytes(1'000'000)), StatusCode::damaged);
}

void refuses_another_length(void** /*state*/) {
  Bytes file = file_with(some_seal(4096, 0));
  file.insert(file.begin(), 4096, std::byte{0});
  assert_int_equal(code_of(file), StatusCode::damaged);
  file.erase(file.begin(), file.begin() + 2 * 4096);
  assert_int_equal(code_of(file), StatusCode::damaged);
  Bytes grown = file_with(some_seal(4096, 0));
  grown.resize(grown.size() + 1);
  assert_int_equal(code_of(grown), StatusCode::damaged);
}

void says_so_of_another_format(void** /*state*/) {
  Seal seal = some_seal(4096, 0);
  for (const std::uint32_t format : {0U, 3U, UINT32_MAX}) {
    seal.format = format;
    assert_int_equal(code_of(file_with(seal)), StatusCode::unsupported);
  }
}

void reads_the_format_before(void** /*state*/) {
  Seal seal = some_seal(4096, 0);
  seal.format = 1;
  Seal found;
  assert_true(apikey::decode_seal(file_with(seal), found).ok());
  assert_int_equal(found.format, 1);
}

void refuses_a_number_of_signatures_that_does_not_fit(void** /*state*/) {
  Bytes file = file_with(some_seal(4096, 4));
  file[3 * 4096 + 96] = std::byte{5};
  assert_int_equal(code_of(file), StatusCode::damaged);
  file[3 * 4096 + 96] = std::byte{3};  // a fourth one would stand where zeros must be
  assert_int_equal(code_of(file), StatusCode::damaged);
}

// Every bit of the page is read or must be zero, but for hash, generation, base and signatures: those are compared
// with the content by the verifier.
void refuses_flipped_bits_of_what_it_checks_itself(void** /*state*/) {
  Bytes file = file_with(some_seal(4096, 1));
  const std::size_t page = 3 * 4096;
  const auto is_checked_elsewhere = [](std::size_t byte) {
    return (byte >= 24 && byte < 96) || (byte >= 128 && byte < 224);
  };
  for (std::size_t bit = 0; bit < 4096 * 8; ++bit) {
    if (is_checked_elsewhere(bit / 8)) continue;
    file[page + bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    assert_int_not_equal(code_of(file), StatusCode::ok);
    file[page + bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
  }
  assert_int_equal(code_of(file), StatusCode::ok);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(comes_back_as_it_was),
      cmocka_unit_test(stands_where_the_page_says),
      cmocka_unit_test(refuses_what_is_no_seal),
      cmocka_unit_test(refuses_another_length),
      cmocka_unit_test(says_so_of_another_format),
      cmocka_unit_test(reads_the_format_before),
      cmocka_unit_test(refuses_a_number_of_signatures_that_does_not_fit),
      cmocka_unit_test(refuses_flipped_bits_of_what_it_checks_itself),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}

// policies.cpp: entries byte by byte, a region written and read, and everything a hostile writer may leave there.
#include "apikey/policies.hpp"

#include <cstring>
#include <string>
#include <vector>

#include "apikey/binding.hpp"
#include "cmocka_cpp.hpp"

using apikey::PolicyEntry;
using apikey::PolicyPlace;
using apikey::PolicyTag;
using apikey::PolicyWriter;
using apikey::publish_policies;
using apikey::StatusCode;

namespace {

using Bytes = std::vector<std::byte>;

// As aligned as a region of node memory.
struct Region {
  explicit Region(std::size_t size) : words((size + 7) / 8), size(size) {}
  [[nodiscard]] std::span<std::byte> bytes() { return std::as_writable_bytes(std::span(words)).first(size); }
  std::vector<std::uint64_t> words;
  std::size_t size;
};

void write_example(PolicyWriter& writer) {
  writer.text(PolicyTag::server, "");
  writer.text(PolicyTag::server_name, "api.example.com");
  writer.location(PolicyPlace::exact, 1, apikey::kPolicyOn | apikey::kPolicyOptional, "/orders");
  writer.methods(PolicyTag::scope_line, apikey::kMethodGet);
  writer.text(PolicyTag::scope, "orders:read");
  write_limit(writer,
              {.kind = 1, .by = 2, .amount = 10, .period_ns = 1'000'000'000, .burst = 20, .place = 5, .name = "fast"});
}

Bytes example() {
  PolicyWriter counting({});
  write_example(counting);
  Bytes bytes(counting.needed());
  PolicyWriter writer(bytes);
  write_example(writer);
  assert_int_equal(writer.needed(), bytes.size());
  return bytes;
}

void entries_byte_by_byte(void**) {
  const Bytes bytes = example();
  constexpr std::array<std::uint8_t, 8> kBegin = {1, 0, 0, 0, 2, 0, 15, 0};
  assert_memory_equal(bytes.data(), kBegin.data(), kBegin.size());
  std::span<const std::byte> rest = bytes;
  PolicyEntry entry;
  assert_true(next_policy(rest, entry) && entry.tag == PolicyTag::server);
  assert_true(next_policy(rest, entry) && entry.text() == "api.example.com");
  assert_true(next_policy(rest, entry) && entry.tag == PolicyTag::location);
  assert_true(entry.place() == PolicyPlace::exact && entry.depth() == 1 && entry.location_name() == "/orders");
  assert_int_equal(entry.flags(), apikey::kPolicyOn | apikey::kPolicyOptional);
  assert_true(next_policy(rest, entry) && entry.methods() == apikey::kMethodGet);
  assert_true(next_policy(rest, entry) && entry.text() == "orders:read");
  assert_true(next_policy(rest, entry) && entry.tag == PolicyTag::limit);
  const apikey::PolicyLimitEntry limit = entry.limit();
  assert_true(limit.kind == 1 && limit.by == 2 && limit.amount == 10 && limit.burst == 20 && limit.place == 5 &&
              limit.name == "fast");
  assert_false(next_policy(rest, entry));
  assert_true(rest.empty());
}

void a_text_is_cut_at_what_its_length_can_say(void**) {
  const std::string endless(100'000, 'x');
  PolicyWriter counting({});
  counting.location(PolicyPlace::regex, 1, 0, endless);
  assert_int_equal(counting.needed(), 4 + 65535);
}

void every_truncation_ends_without_a_wrong_entry(void**) {
  const Bytes whole = example();
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
    std::span<const std::byte> rest = cut;
    PolicyEntry entry;
    while (next_policy(rest, entry)) {
      assert_true(entry.value.data() + entry.value.size() <= cut.data() + cut.size());
    }
  }
}

// Each byte becomes each of some values: whatever is read lies within the bytes.
void hostile_bytes_are_never_believed(void**) {
  const Bytes whole = example();
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (const unsigned value : {0U, 1U, 4U, 9U, 12U, 14U, 127U, 255U}) {
      Bytes bad = whole;
      bad[at] = static_cast<std::byte>(value);
      std::span<const std::byte> rest = bad;
      PolicyEntry entry;
      while (next_policy(rest, entry)) {
        assert_true(entry.value.data() >= bad.data());
        assert_true(entry.value.data() + entry.value.size() <= bad.data() + bad.size());
        if (entry.tag == PolicyTag::location) {
          assert_true(static_cast<std::size_t>(entry.place()) < apikey::kPolicyPlaceCount);
          static_cast<void>(entry.location_name());
        } else if (entry.tag == PolicyTag::limit || entry.tag == PolicyTag::fail_limit) {
          static_cast<void>(entry.limit());
        } else if (entry.tag == PolicyTag::scope_line || entry.tag == PolicyTag::except_methods) {
          static_cast<void>(entry.methods());
        }
      }
    }
  }
}

void unknown_tags_are_skipped(void**) {
  Bytes bytes(16);
  PolicyWriter writer(bytes);
  writer.text(static_cast<PolicyTag>(999), "new");
  writer.text(PolicyTag::realm, "r");
  std::span<const std::byte> rest = std::span(bytes).first(writer.needed());
  PolicyEntry entry;
  assert_true(next_policy(rest, entry) && entry.tag == PolicyTag::realm && entry.text() == "r");
  assert_false(next_policy(rest, entry));
}

void too_short_a_value_is_damage(void**) {
  for (const PolicyTag tag : {PolicyTag::location, PolicyTag::limit, PolicyTag::scope_line, PolicyTag::fail_limit,
                              PolicyTag::except_methods}) {
    Bytes bytes(7);
    PolicyWriter writer(bytes);
    writer.text(tag, "abc");
    std::span<const std::byte> rest = bytes;
    PolicyEntry entry;
    assert_false(next_policy(rest, entry));
    assert_false(rest.empty());
  }
}

StatusCode read(Region& region, apikey::PoliciesRead& found, Bytes& out) {
  out.resize(region.size);
  return read_policies(region.bytes(), out, found).code;
}

void a_region_is_read_as_it_was_written(void**) {
  Region region(4096);
  Bytes out;
  apikey::PoliciesRead found;
  assert_true(read(region, found, out) == StatusCode::absent);
  const Bytes entries = example();
  publish_policies(region.bytes(), entries, 7, 1234);
  assert_true(read(region, found, out) == StatusCode::ok);
  assert_true(found.configuration == 7 && found.written_us == 1234 && found.entries.size() == entries.size());
  assert_memory_equal(found.entries.data(), entries.data(), entries.size());
  publish_policies(region.bytes(), {}, 8, 1235);
  assert_true(read(region, found, out) == StatusCode::ok);
  assert_true(found.configuration == 8 && found.entries.empty());
}

void what_finds_no_room_says_so(void**) {
  Region region(apikey::kPoliciesHeaderSize + 8);
  Bytes out;
  apikey::PoliciesRead found;
  publish_policies(region.bytes(), example(), 7, 1);
  assert_true(read(region, found, out) == StatusCode::refused);
}

void a_region_that_is_being_written_or_lies_is_not_believed(void**) {
  Bytes out;
  apikey::PoliciesRead found;
  for (std::size_t at = 0; at < apikey::kPoliciesHeaderSize - 16 + 8; ++at) {
    Region region(1024);
    publish_policies(region.bytes(), example(), 7, 1);
    region.bytes()[at] ^= std::byte{0xff};
    const bool is_read = read(region, found, out) == StatusCode::ok;
    // A sequence that is only another even number, and the time, are nobody's proof; what is zero is not read.
    const bool may_be = (at > 0 && at < 8) || (at >= 16 && at < 24) || at >= 48;
    assert_true(!is_read || may_be);
  }
  Region region(1024);
  publish_policies(region.bytes(), example(), 7, 1);
  region.bytes()[apikey::kPoliciesHeaderSize + 5] ^= std::byte{1};
  assert_true(read(region, found, out) == StatusCode::damaged);
  Region small(32);
  assert_true(read(small, found, out) == StatusCode::damaged);
}

void sizes_leave_room_to_grow(void**) {
  assert_int_equal(apikey::policies_size(0), apikey::kMinPoliciesSize);
  assert_true(apikey::policies_size(1'000'000) >= 2'000'000);
  assert_int_equal(apikey::policies_size(SIZE_MAX / 8), apikey::kMaxPoliciesSize);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(entries_byte_by_byte),
      cmocka_unit_test(a_text_is_cut_at_what_its_length_can_say),
      cmocka_unit_test(every_truncation_ends_without_a_wrong_entry),
      cmocka_unit_test(hostile_bytes_are_never_believed),
      cmocka_unit_test(unknown_tags_are_skipped),
      cmocka_unit_test(too_short_a_value_is_damage),
      cmocka_unit_test(a_region_is_read_as_it_was_written),
      cmocka_unit_test(what_finds_no_room_says_so),
      cmocka_unit_test(a_region_that_is_being_written_or_lies_is_not_believed),
      cmocka_unit_test(sizes_leave_room_to_grow),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}

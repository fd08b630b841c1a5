// anchors.cpp: what is kept is read again, the oldest goes, and nothing that does not check is believed.
#include "apikey/anchors.hpp"

#include <array>
#include <memory>
#include <vector>

#include "cmocka_cpp.hpp"

using apikey::Anchor;
using apikey::kAnchorRowSize;
using apikey::kAnchorsHeaderSize;
using apikey::kAnchorsSize;
using apikey::kMaxAnchors;

namespace {

struct Region {
  alignas(64) std::array<std::byte, kAnchorsSize> bytes{};
};

Anchor anchor_of(std::uint64_t i) {
  Anchor anchor{.store = 5, .generation = i, .audit_seq = 2 * i, .adopted_us = 1000 + i};
  anchor.registry_id.fill(0xab);
  anchor.audit_head.fill(static_cast<std::uint8_t>(i));
  return anchor;
}

std::vector<Anchor> all_of(const Region& region) {
  std::vector<Anchor> anchors;
  Anchor anchor;
  for (std::size_t i = 0; i < kMaxAnchors; ++i) {
    if (apikey::read_anchor(region.bytes, i, anchor)) anchors.push_back(anchor);
  }
  return anchors;
}

void come_back_oldest_first(void**) {
  const auto region = std::make_unique<Region>();
  assert_int_equal(all_of(*region).size(), 0);
  for (std::uint64_t i = 1; i <= 3; ++i) {
    apikey::keep_anchor(region->bytes, anchor_of(i));
  }
  const auto found = all_of(*region);
  assert_int_equal(found.size(), 3);
  for (std::size_t i = 0; i < found.size(); ++i) {
    assert_int_equal(found[i].number, i + 1);
    assert_int_equal(found[i].store, 5);
    assert_int_equal(found[i].generation, i + 1);
    assert_int_equal(found[i].audit_seq, 2 * (i + 1));
    assert_int_equal(found[i].adopted_us, 1001 + i);
    assert_true(found[i].registry_id == anchor_of(i + 1).registry_id);
    assert_true(found[i].audit_head == anchor_of(i + 1).audit_head);
  }
}

void stand_where_the_header_says(void**) {
  const auto region = std::make_unique<Region>();
  apikey::keep_anchor(region->bytes, anchor_of(9));
  const std::byte* row = region->bytes.data() + kAnchorsHeaderSize;
  assert_int_equal(std::to_integer<int>(region->bytes[0]), 1);
  assert_int_equal(std::to_integer<int>(row[0]), 1);
  assert_int_equal(std::to_integer<int>(row[8]), 5);
  assert_int_equal(std::to_integer<int>(row[16]), 9);
  assert_int_equal(std::to_integer<int>(row[24]), 18);
  assert_int_equal(std::to_integer<int>(row[40]), 0xab);
  assert_int_equal(std::to_integer<int>(row[56]), 9);
  assert_int_equal(std::to_integer<int>(row[87]), 9);
}

void one_is_kept_once(void**) {
  const auto region = std::make_unique<Region>();
  apikey::keep_anchor(region->bytes, anchor_of(1));
  Anchor again = anchor_of(1);
  again.adopted_us += 7;  // a restart adopts the same file again
  apikey::keep_anchor(region->bytes, again);
  assert_int_equal(all_of(*region).size(), 1);
  again.audit_head[0] ^= 1;  // another history with the same numbers
  apikey::keep_anchor(region->bytes, again);
  assert_int_equal(all_of(*region).size(), 2);
}

void the_oldest_goes(void**) {
  const auto region = std::make_unique<Region>();
  for (std::uint64_t i = 1; i <= kMaxAnchors + 2; ++i) {
    apikey::keep_anchor(region->bytes, anchor_of(i));
  }
  const auto found = all_of(*region);
  assert_int_equal(found.size(), kMaxAnchors);
  assert_int_equal(found.front().generation, 3);
  assert_int_equal(found.back().generation, kMaxAnchors + 2);
}

void what_does_not_check_is_none(void**) {
  const auto region = std::make_unique<Region>();
  apikey::keep_anchor(region->bytes, anchor_of(1));
  for (std::size_t at = 0; at < 96; ++at) {
    region->bytes[kAnchorsHeaderSize + at] ^= std::byte{1};
    assert_int_equal(all_of(*region).size(), 0);
    region->bytes[kAnchorsHeaderSize + at] ^= std::byte{1};
  }
  region->bytes.fill(std::byte{0xff});
  assert_int_equal(all_of(*region).size(), 0);
  apikey::keep_anchor(region->bytes, anchor_of(2));  // whatever the count says, it stays inside
  assert_int_equal(all_of(*region).size(), 1);
}

void a_region_of_another_size_is_none(void**) {
  const auto region = std::make_unique<Region>();
  Anchor anchor;
  apikey::keep_anchor({}, anchor_of(1));
  apikey::keep_anchor(std::span(region->bytes).first(kAnchorsSize - kAnchorRowSize), anchor_of(1));
  assert_int_equal(all_of(*region).size(), 0);
  assert_false(apikey::read_anchor(std::span(region->bytes).first(100), 0, anchor));
}

void are_carried_over(void**) {
  const auto from = std::make_unique<Region>();
  const auto to = std::make_unique<Region>();
  for (std::uint64_t i = 1; i <= kMaxAnchors + 5; ++i) {
    apikey::keep_anchor(from->bytes, anchor_of(i));
  }
  from->bytes[kAnchorsHeaderSize + 10 * kAnchorRowSize] ^= std::byte{1};
  apikey::carry_anchors(from->bytes, to->bytes);
  const auto found = all_of(*to);
  assert_int_equal(found.size(), kMaxAnchors - 1);
  assert_int_equal(found.front().generation, 6);
  assert_int_equal(found.back().generation, kMaxAnchors + 5);
  assert_int_equal(found.back().number, kMaxAnchors - 1);
  apikey::carry_anchors({}, to->bytes);  // the module before had no such region
  assert_int_equal(all_of(*to).size(), kMaxAnchors - 1);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(come_back_oldest_first),
      cmocka_unit_test(stand_where_the_header_says),
      cmocka_unit_test(one_is_kept_once),
      cmocka_unit_test(the_oldest_goes),
      cmocka_unit_test(what_does_not_check_is_none),
      cmocka_unit_test(a_region_of_another_size_is_none),
      cmocka_unit_test(are_carried_over),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}

// The inbox: a permission lets one snapshot in, once.
#include "apikey/node_inbox.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "cmocka_cpp.hpp"

using namespace apikey;

namespace {

using Bytes = std::array<std::byte, kInboxSize>;
alignas(64) Bytes bytes;
constexpr NodeInstance kInstance = {7, 8};

Permission make_permission(std::uint8_t seal, std::uint64_t granted_us = 1) {
  Permission permission;
  permission.seal.fill(seal);
  permission.registry_id.fill(4);
  permission.generation = 40;
  permission.store = 9;
  permission.granted_us = granted_us;
  return permission;
}

Inbox make_inbox() {
  bytes = {};
  Inbox inbox;
  assert_true(format_inbox(bytes, kInstance, inbox).ok());
  return inbox;
}

void test_a_permission_is_used_once(void**) {
  const Inbox inbox = make_inbox();
  const Permission given = make_permission(1);
  assert_int_equal(inbox.find(given), 0);
  assert_true(inbox.grant(given));
  Inbox other;
  assert_true(attach_inbox(bytes, kInstance, other).ok());
  assert_int_equal(other.find(make_permission(1, 77)), 1);  // whenever it was granted
  assert_int_equal(other.find(make_permission(2)), 0);
  assert_true(other.use(given));
  assert_false(inbox.use(given));
  assert_int_equal(inbox.find(given), 0);
}

void test_a_permission_is_for_one_file_in_one_store(void**) {
  const Inbox inbox = make_inbox();
  const Permission given = make_permission(1);
  assert_true(inbox.grant(given));
  Permission other = given;
  other.store = 10;
  assert_int_equal(inbox.find(other), 0);
  assert_false(inbox.use(other));
  other = given;
  other.generation = 41;
  assert_false(inbox.use(other));
  other = given;
  other.registry_id.fill(5);
  assert_false(inbox.use(other));
  assert_true(inbox.use(given));
}

void test_earlier_permissions_are_withdrawn(void**) {
  const Inbox inbox = make_inbox();
  Permission elsewhere = make_permission(3, 10);
  elsewhere.store = 10;
  assert_true(inbox.grant(make_permission(1, 20)));
  assert_true(inbox.grant(make_permission(2, 21)));
  assert_true(inbox.grant(elsewhere));
  inbox.withdraw(9, 20);
  assert_int_equal(inbox.find(make_permission(1)), 0);
  assert_int_equal(inbox.find(make_permission(2)), 21);
  assert_int_equal(inbox.find(elsewhere), 10);
}

void test_the_bytes_are_as_drawn(void**) {
  assert_true(make_inbox().grant(make_permission(1, 99)));
  const auto word = [](std::size_t offset) {
    std::uint64_t value = 0;
    std::memcpy(&value, bytes.data() + offset, sizeof value);
    return value;
  };
  assert_memory_equal(bytes.data(), "AKINBOX1", 8);
  assert_int_equal(word(8), 1);
  assert_int_equal(word(16), 7);
  assert_int_equal(word(128), 2);
  assert_int_equal(word(128 + 8), 0x0101010101010101);
  assert_int_equal(word(128 + 40), 0x0404040404040404);
  assert_int_equal(word(128 + 56), 40);
  assert_int_equal(word(128 + 64), 9);
  assert_int_equal(word(128 + 72), 99);
}

void test_the_oldest_makes_room_last(void**) {
  const Inbox inbox = make_inbox();
  for (std::uint8_t i = 0; i < kInboxPermissions; ++i) {
    assert_true(inbox.grant(make_permission(i, 100U - i)));
  }
  assert_true(inbox.use(make_permission(3)));
  assert_true(inbox.grant(make_permission(50, 200)));  // where the used one was
  assert_int_equal(inbox.find(make_permission(15)), 85);
  assert_true(inbox.grant(make_permission(51, 201)));  // where the oldest was
  assert_int_equal(inbox.find(make_permission(15)), 0);
  assert_int_equal(inbox.find(make_permission(50)), 200);
  assert_int_equal(inbox.find(make_permission(51)), 201);
}

void test_what_a_dead_writer_left_is_taken(void**) {
  const Inbox inbox = make_inbox();
  for (std::size_t i = 0; i < kInboxPermissions; ++i) {
    const std::uint64_t writing = 1;
    std::memcpy(bytes.data() + 128 + 128 * i, &writing, sizeof writing);
  }
  assert_int_equal(inbox.find({}), 0);
  assert_true(inbox.grant(make_permission(1)));
  assert_int_equal(inbox.find(make_permission(1)), 1);
}

void test_others_inboxes_are_not_taken(void**) {
  make_inbox();
  Inbox inbox;
  assert_int_equal(attach_inbox(bytes, {7, 9}, inbox).code, StatusCode::refused);
  assert_int_equal(attach_inbox(std::span(bytes).first(4096), kInstance, inbox).code, StatusCode::damaged);
  bytes[8] = std::byte{2};
  assert_int_equal(attach_inbox(bytes, kInstance, inbox).code, StatusCode::damaged);
  bytes = {};
  assert_int_equal(attach_inbox(bytes, kInstance, inbox).code, StatusCode::damaged);
  assert_int_equal(inbox.find({}), 0);
  assert_false(inbox.use({}));
  inbox.withdraw(0, 1);
  assert_false(inbox.grant(make_permission(1)));
}

void test_hours_to_forget_are_of_one_usage_table(void**) {
  constexpr UsageInstance kTable = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  constexpr UsageInstance kOther = {9};
  const Inbox inbox = make_inbox();
  assert_int_equal(inbox.hour_to_forget(kTable), 0);
  assert_int_equal(inbox.hour_to_forget({}), 0);
  assert_true(inbox.ask_to_forget(kTable, 480'000));
  Inbox other;
  assert_true(attach_inbox(bytes, kInstance, other).ok());
  assert_int_equal(other.hour_to_forget(kTable), 480'000);
  assert_int_equal(other.hour_to_forget(kOther), 0);
  assert_true(inbox.ask_to_forget(kOther, 480'001));
  assert_int_equal(other.hour_to_forget(kTable), 0);
  assert_int_equal(other.hour_to_forget(kOther), 480'001);
  assert_false(Inbox().ask_to_forget(kTable, 1));
  assert_int_equal(Inbox().hour_to_forget(kTable), 0);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(test_a_permission_is_used_once),
      cmocka_unit_test(test_a_permission_is_for_one_file_in_one_store),
      cmocka_unit_test(test_earlier_permissions_are_withdrawn),
      cmocka_unit_test(test_the_bytes_are_as_drawn),
      cmocka_unit_test(test_the_oldest_makes_room_last),
      cmocka_unit_test(test_what_a_dead_writer_left_is_taken),
      cmocka_unit_test(test_others_inboxes_are_not_taken),
      cmocka_unit_test(test_hours_to_forget_are_of_one_usage_table),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}

// scope_set.cpp: names, what grants what, and encoded sets that lie about themselves.
#include "apikey/scope_set.hpp"

#include <string>
#include <vector>

#include "cmocka_cpp.hpp"
#include "expect_text.hpp"

using apikey::is_valid_grant;
using apikey::is_valid_scope;
using apikey::scope_grants;
using apikey::ScopeSet;

namespace {

using Bytes = std::vector<std::byte>;
using Scopes = std::vector<std::string_view>;

Bytes encoded(const Scopes& scopes) {
  Bytes bytes(apikey::encoded_scopes_size(scopes));
  apikey::encode_scopes(scopes, bytes);
  return bytes;
}

bool decodes(const Bytes& bytes) {
  ScopeSet set;
  return ScopeSet::decode(bytes, set);
}

void scope_names(void**) {
  const std::string longest(apikey::kMaxScopeLength, 's');
  const std::string too_long = longest + "s";
  for (const std::string_view good : {"a", "orders:read", "a:b:c:d", "v1.2/x_y-z:READ", longest.c_str()}) {
    assert_true(is_valid_scope(good));
    assert_true(is_valid_grant(good));
  }
  for (const std::string_view bad : {"", ":", "a:", ":a", "a::b", "a b", "a,b", "\xc3\xa4", "a\n", too_long.c_str()}) {
    assert_false(is_valid_scope(bad));
    assert_false(is_valid_grant(bad));
  }
}

void wildcards_stand_last_and_alone(void**) {
  for (const std::string_view good : {"*", "a:*", "a:b:*"}) {
    assert_true(is_valid_grant(good));
    assert_false(is_valid_scope(good));
  }
  for (const std::string_view bad : {"**", "a*", "a:b*", "a:*:c", "*:a", ":*", "a::*", "a:*:*", "*:*"}) {
    assert_false(is_valid_grant(bad));
    assert_false(is_valid_scope(bad));
  }
  const std::string stem(apikey::kMaxScopeLength - 2, 's');
  assert_true(is_valid_grant(stem + ":*"));
  assert_false(is_valid_grant(stem + "s:*"));
}

void what_grants_what(void**) {
  assert_true(scope_grants("orders:read", "orders:read"));
  assert_false(scope_grants("orders:read", "orders:write"));
  assert_false(scope_grants("orders:read", "orders:read:own"));
  assert_false(scope_grants("orders:read:own", "orders:read"));
  assert_false(scope_grants("orders", "orders:read"));
  assert_false(scope_grants("Orders:read", "orders:read"));
  assert_true(scope_grants("orders:*", "orders:read"));
  assert_true(scope_grants("orders:*", "orders:read:own"));
  assert_false(scope_grants("orders:*", "orders"));
  assert_false(scope_grants("orders:*", "orders2:read"));
  assert_false(scope_grants("orders:*", "order:read"));
  assert_false(scope_grants("orders:*", "orders:"));
  assert_true(scope_grants("*", "anything:at:all"));
}

void reserved_scopes_need_a_grant_of_their_own(void**) {
  for (const std::string_view reserved : {"apikey:admin", "apikey:*", "apikey:a:b", "apikey:"}) {
    assert_true(apikey::is_reserved_scope(reserved));
    assert_false(scope_grants("*", reserved));
  }
  for (const std::string_view other : {"apikey", "APIKEY:admin", "apikeys:admin", "a:apikey:admin", "*", ""}) {
    assert_false(apikey::is_reserved_scope(other));
  }
  assert_true(scope_grants("*", "apikey"));
  assert_true(scope_grants("*", "APIKEY:admin"));
  assert_true(scope_grants("apikey:admin", "apikey:admin"));
  assert_true(scope_grants("apikey:*", "apikey:admin"));
  assert_true(scope_grants("apikey:a:*", "apikey:a:b"));
  for (const std::string_view grant :
       {"apikey", "apikey:", "APIKEY:*", "APIKEY:admin", "apikey:view", "apikey:admin:*", "admin", "a:*"}) {
    assert_false(scope_grants(grant, "apikey:admin"));
  }
  ScopeSet set;
  const Bytes without = encoded({"*", "apikey", "orders:*"});
  assert_true(ScopeSet::decode(without, set));
  assert_false(set.grants("apikey:admin"));
  const Bytes with = encoded({"*", "apikey:*"});
  assert_true(ScopeSet::decode(with, set));
  assert_true(set.grants("apikey:admin"));
}

void a_set_byte_by_byte(void**) {
  const Bytes bytes = encoded({"a", "b:*"});
  expect_bytes(bytes, bytes_of<10>("02000100610300623a2a"));
  ScopeSet set;
  assert_true(ScopeSet::decode(bytes, set));
  assert_int_equal(set.size(), 2);
  auto it = set.begin();
  expect_text(*it, "a");
  ++it;
  expect_text(*it, "b:*");
  ++it;
  assert_true(it == set.end());
}

void empty_sets(void**) {
  ScopeSet set;
  assert_int_equal(set.size(), 0);
  assert_true(set.begin() == set.end());
  assert_false(set.grants("a"));
  assert_true(ScopeSet::decode(encoded({}), set));
  assert_int_equal(set.size(), 0);
  assert_true(set.begin() == set.end());
  assert_false(set.grants("a"));
}

// Every set of grants against every requirement, the long way round.
void a_set_grants_what_one_of_its_scopes_grants(void**) {
  const Scopes grants = {"*", "a", "a-b", "a.b", "a/b", "a:*", "a:a", "a:b", "a:b:*", "a:b:c", "a_b", "ab", "b:*"};
  const Scopes required = {"a", "a-b", "a.b:c", "a/b", "a:a", "a:b", "a:b:c", "a:b:d", "a_b", "ab", "b", "b:c", "z"};
  assert_true(std::is_sorted(grants.begin(), grants.end()));
  for (unsigned mask = 0; mask < 1U << grants.size(); ++mask) {
    Scopes held;
    for (std::size_t i = 0; i < grants.size(); ++i) {
      if ((mask >> i & 1) != 0) {
        held.push_back(grants[i]);
      }
    }
    const Bytes bytes = encoded(held);
    ScopeSet set;
    assert_true(ScopeSet::decode(bytes, set));
    for (const std::string_view scope : required) {
      const bool expected =
          std::any_of(held.begin(), held.end(), [&](std::string_view grant) { return scope_grants(grant, scope); });
      assert_int_equal(set.grants(scope), expected);
    }
  }
}

void order_is_part_of_the_form(void**) {
  assert_true(decodes(encoded({"a", "b"})));
  assert_false(decodes(encoded({"b", "a"})));
  assert_false(decodes(encoded({"a", "a"})));
}

void invalid_names_are_refused(void**) {
  for (const std::string_view bad : {"", "a b", "a*", "*:a"}) {
    assert_false(decodes(encoded({bad})));
  }
}

void lengths_that_lie_are_refused(void**) {
  const Bytes bytes = encoded({"alpha", "beta", "gamma:*"});
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    assert_false(decodes(Bytes(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size))));
  }
  Bytes longer = bytes;
  longer.push_back(std::byte{0});
  assert_false(decodes(longer));
  for (const std::size_t offset : std::array<std::size_t, 4>{0, 1, 2, 3}) {  // count, length of the first
    for (int value = 0; value < 256; ++value) {
      Bytes broken = bytes;
      broken[offset] = static_cast<std::byte>(value);
      assert_int_equal(decodes(broken), broken == bytes);
    }
  }
}

void a_refused_set_leaves_the_old_one(void**) {
  const Bytes bytes = encoded({"a"});
  ScopeSet set;
  assert_true(ScopeSet::decode(bytes, set));
  assert_false(ScopeSet::decode(Bytes(1), set));
  assert_true(set.grants("a"));
}

void the_most_scopes(void**) {
  std::vector<std::string> names;
  for (std::size_t i = 0; i <= apikey::kMaxScopesPerSet; ++i) {
    names.push_back("s" + std::to_string(10000 + i));
  }
  Scopes scopes(names.begin(), names.end());
  assert_false(decodes(encoded(scopes)));
  scopes.pop_back();
  const Bytes bytes = encoded(scopes);
  ScopeSet set;
  assert_true(ScopeSet::decode(bytes, set));
  assert_true(set.grants("s10999"));
  assert_false(set.grants("s11000"));
}

void the_nearest_of_those_that_are_known(void**) {
  const Bytes bytes = encoded({"a", "billing:*", "orders:read", "orders:write"});
  ScopeSet known;
  assert_true(ScopeSet::decode(bytes, known));
  const auto expect = [&](std::string_view scope, std::string_view nearest) {
    assert_true(apikey::nearest_scope(known, scope) == nearest);
  };
  expect("order:read", "orders:read");
  expect("orders:raed", "orders:read");
  expect("orders:writes", "orders:write");
  expect("orders:rd", "orders:read");
  expect("orders:delete", "");
  expect("b", "");  // every short word is near another
  expect(std::string(apikey::kMaxScopeLength, 'x'), "");
  assert_true(apikey::nearest_scope(ScopeSet{}, "orders:read").empty());
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(scope_names),
      cmocka_unit_test(wildcards_stand_last_and_alone),
      cmocka_unit_test(what_grants_what),
      cmocka_unit_test(reserved_scopes_need_a_grant_of_their_own),
      cmocka_unit_test(a_set_byte_by_byte),
      cmocka_unit_test(empty_sets),
      cmocka_unit_test(a_set_grants_what_one_of_its_scopes_grants),
      cmocka_unit_test(order_is_part_of_the_form),
      cmocka_unit_test(invalid_names_are_refused),
      cmocka_unit_test(lengths_that_lie_are_refused),
      cmocka_unit_test(a_refused_set_leaves_the_old_one),
      cmocka_unit_test(the_most_scopes),
      cmocka_unit_test(the_nearest_of_those_that_are_known),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}

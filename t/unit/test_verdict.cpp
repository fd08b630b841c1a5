// verdict.cpp: every outcome has its own name, and exactly six of them let a request pass.
#include "apikey/verdict.hpp"

#include "cmocka_cpp.hpp"
#include "expect_text.hpp"

using apikey::kOutcomeCount;
using apikey::Outcome;
using apikey::outcome_name;

namespace {

void names_are_those_of_the_table(void**) {
  constexpr std::pair<Outcome, std::string_view> kNames[] = {
      {Outcome::off, "off"},
      {Outcome::skipped, "skipped"},
      {Outcome::preflight, "preflight"},
      {Outcome::missing, "missing"},
      {Outcome::anonymous, "anonymous"},
      {Outcome::malformed, "malformed"},
      {Outcome::unavailable, "unavailable"},
      {Outcome::bypass, "bypass"},
      {Outcome::unknown, "unknown"},
      {Outcome::revoked, "revoked"},
      {Outcome::suspended, "suspended"},
      {Outcome::not_yet_valid, "not_yet_valid"},
      {Outcome::expired, "expired"},
      {Outcome::throttled, "throttled"},
      {Outcome::wrong_environment, "wrong_environment"},
      {Outcome::wrong_address, "wrong_address"},
      {Outcome::tls_required, "tls_required"},
      {Outcome::wrong_origin, "wrong_origin"},
      {Outcome::wrong_method, "wrong_method"},
      {Outcome::wrong_host, "wrong_host"},
      {Outcome::scope, "scope"},
      {Outcome::rate_limited, "rate_limited"},
      {Outcome::quota_exceeded, "quota_exceeded"},
      {Outcome::concurrency_limited, "concurrency_limited"},
      {Outcome::ok, "ok"},
  };
  assert_int_equal(std::size(kNames), kOutcomeCount);
  for (const auto& [outcome, name] : kNames) {
    expect_text(outcome_name(outcome), name);
  }
}

void only_these_let_pass(void**) {
  constexpr Outcome kPassing[] = {Outcome::off,       Outcome::skipped, Outcome::preflight,
                                  Outcome::anonymous, Outcome::bypass,  Outcome::ok};
  for (std::size_t i = 0; i < kOutcomeCount; ++i) {
    const auto outcome = static_cast<Outcome>(i);
    const bool is_expected = std::find(std::begin(kPassing), std::end(kPassing), outcome) != std::end(kPassing);
    assert_int_equal(apikey::lets_pass(outcome), is_expected);
  }
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(names_are_those_of_the_table),
      cmocka_unit_test(only_these_let_pass),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}

// Rates and bursts as people write them: `100r/s`, `100/s`, `30r/m`, `burst` as a whole number.
// Called by the module's directives and by keyloader. Never guesses: what is not exactly a rate is refused.
#include "apikey/rate_spec.hpp"

#include <charconv>

#include "apikey/units.hpp"

namespace apikey {
namespace {

constexpr std::uint64_t kNsPerMinute = 60 * kNsPerSecond;
constexpr std::uint64_t kNsPerHour = 60 * kNsPerMinute;

constexpr const char* kRateForm = "a rate looks like 100r/s, 100/s, 30r/m or 1000r/h";

// Takes the digits off the front of `text`. RETURNS: false when there are none or they say more than 64 bits hold.
bool cut_number(std::string_view& text, std::uint64_t& number) noexcept {
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{}) {
    return false;
  }
  text.remove_prefix(static_cast<std::size_t>(stop - text.data()));
  return true;
}

std::uint64_t period_of(std::string_view unit) noexcept {
  if (unit == "/s") {
    return kNsPerSecond;
  }
  if (unit == "/m") {
    return kNsPerMinute;
  }
  return unit == "/h" ? kNsPerHour : 0;
}

}  // namespace

Status parse_rate(std::string_view text, Rate& rate) noexcept {
  Rate found;
  if (!cut_number(text, found.amount)) {
    return {StatusCode::bad_value, kRateForm};
  }
  if (text.starts_with('r')) {
    text.remove_prefix(1);
  }
  found.period_ns = period_of(text);
  if (found.period_ns == 0) {
    return {StatusCode::bad_value, kRateForm};
  }
  if (found.amount == 0 || found.amount > kMaxRateAmount) {
    return {StatusCode::bad_value, "the number in a rate is 1 to {0}, not {1}", kMaxRateAmount, found.amount};
  }
  rate = found;
  return {};
}

Status parse_burst(std::string_view text, std::uint64_t& burst) noexcept {
  std::uint64_t found = 0;
  if (!cut_number(text, found) || !text.empty()) {
    return {StatusCode::bad_value, "burst is a whole number of requests, 1 to {0}", kMaxBurst};
  }
  if (found == 0) {
    return {StatusCode::bad_value,
            "burst=0 would admit nothing: burst is the size of the bucket; limit_req's burst=n is burst=n+1 here"};
  }
  if (found > kMaxBurst) {
    return {StatusCode::bad_value, "burst is at most {0}, not {1}", kMaxBurst, found};
  }
  burst = found;
  return {};
}

// Also right for r/s: the number in the rate is what one second brings, and it is at least 1.
std::uint64_t default_burst(const Rate& rate) noexcept { return rate.amount; }

}  // namespace apikey

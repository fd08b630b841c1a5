// Rates as people write them: "100r/s", "100/s", "30r/m", "1000/h"; burst as a whole number.
#pragma once

#include <cstdint>
#include <string_view>

#include "apikey/status.hpp"

namespace apikey {

struct Rate {
  std::uint64_t amount = 0;     // tokens …
  std::uint64_t period_ns = 0;  // … per this time
  friend constexpr bool operator==(const Rate&, const Rate&) = default;
};

inline constexpr std::uint64_t kMaxRateAmount = 1'000'000'000;
inline constexpr std::uint64_t kMaxBurst = 1'000'000'000;

// RETURNS: bad_value with a sentence that says what a rate looks like. Zero is not a rate.
Status parse_rate(std::string_view text, Rate& rate) noexcept;

// The size of the bucket. RETURNS: bad_value; for 0 with the sentence that burst=0 would admit nothing and that
// limit_req's burst=n is our burst=n+1.
Status parse_burst(std::string_view text, std::uint64_t& burst) noexcept;

// What burst is when none is written: one second's worth, at least 1, for r/s; the number in the rate for r/m and r/h.
[[nodiscard]] std::uint64_t default_burst(const Rate& rate) noexcept;

}  // namespace apikey

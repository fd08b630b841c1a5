// Which limits apply to a request, and what it costs each of them.
// Called by decide() (row 9), and by what shows limits; keyloader asks for the measure of a name. Taking: limits.hpp.
// Allocates nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "apikey/limits.hpp"
#include "apikey/record.hpp"
#include "apikey/rows.hpp"
#include "apikey/snapshot.hpp"
#include "apikey/units.hpp"

namespace apikey {

inline constexpr std::size_t kMaxLocationLimits = 8;

// What a request costs the limits of one measure. What a limit measures is its name up to the first `.`; the names that
// limits have where none is written (rate, minute … year, owner, owner.day …, a location's) measure requests.
struct MeasuredCost {
  std::string_view measure;  // empty: all limits that no other one is for
  std::uint64_t cost = 1;
  bool is_settled = false;  // the answer has said it
};
[[nodiscard]] std::string_view measure_of(std::string_view limit_name) noexcept;  // "" for requests

// Settles what `taker` has taken by the costs that the answer has said: each limit by the cost of its measure, in
// whichever location it was taken.
void settle_costs(const LimitTables& tables, Takings& takings, std::uint8_t taker, std::span<const MeasuredCost> costs,
                  const Clocks& clocks) noexcept;

// The limits of a key: its plan's, replaced by its own of the same name, and its owner's; quotas as grants and resets
// have left them. RETURNS: false when a row is damaged or there are more than `uses` has room for; then nobody knows
// what applies.
[[nodiscard]] bool gather_key_limits(const Snapshot& snapshot, const Record& record, const OwnerRow& owner,
                                     const LimitTables& tables, std::span<const MeasuredCost> costs, UnixSec now,
                                     std::span<LimitUse> uses, std::size_t& count) noexcept;

// A limit of a location.
struct LocationLimit {
  LimitKind kind = LimitKind::rate;  // or concurrency
  Rate rate;
  std::uint64_t burst = 0;  // or requests at once
  std::string_view name;
  // Of a limit without a name of its own: where in the configuration it stands, not 0. Then `name` is only shown.
  std::uint64_t place = 0;
};
// A text that stands for the place says nothing of what is counted.
[[nodiscard]] std::string_view measure_of(const LocationLimit& limit) noexcept;
// `is_client_chosen`: the subject, see LimitTables.
[[nodiscard]] LimitUse location_use(const LocationLimit& limit, std::uint64_t subject, bool is_client_chosen,
                                    const LimitTables& tables, std::span<const MeasuredCost> costs) noexcept;

}  // namespace apikey

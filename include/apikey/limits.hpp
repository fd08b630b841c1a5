// The limits of one request, whatever they count: taking from all of them or from none. Which apply:
// limit_gathering.hpp.
// Called by decide() (row 9), by whoami and the headers (looking only), and when a request ends (settling, refunds).
// Allocates nothing; the tables are the caller's.
//
// All that apply are looked at first. If all would pass they are taken in one fixed order, and who loses a race on the
// way gives back exactly what he took. Others may see a reservation for some microseconds; a worker that is killed
// inside leaves one request's cost behind: always towards fewer, never more.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>

#include "apikey/bucket_table.hpp"
#include "apikey/flight_table.hpp"
#include "apikey/quota_table.hpp"
#include "apikey/rows.hpp"
#include "apikey/units.hpp"
#include "apikey/verdict.hpp"

namespace apikey {

inline constexpr std::size_t kMaxUses = 40;  // limits of one request: two lists of a snapshot, and a location's

struct Clocks {
  UnixSec wall;
  MonoNs mono;
  WallUs wall_us;
};

// This node's part of a fleet: it enforces part/whole of every limit, and never less than 1.
struct Share {
  std::uint32_t part = 1;
  std::uint32_t whole = 1;
};

// Subjects that a client chooses (the value of a variable, its address) have tables of their own: there may be any
// number of them, so their tables can always be filled, and must not hold what was given to a key or an owner. Quotas
// are of keys and owners only. REQUIRES: both tables of a kind have one seed, so that a subject is the same in both.
struct LimitTables {
  const BucketTable* buckets = nullptr;  // of key families and owners; null: there are no limits here
  const QuotaTable* quotas = nullptr;
  const FlightTable* flights = nullptr;  // of key families and owners
  FlightHolder holder;
  Share share;
  const BucketTable* client_buckets = nullptr;
  const FlightTable* client_flights = nullptr;
  // Of all costs that a response settles, in any location. An empty measure is a cost for all limits.
  std::span<const std::string_view> settled_measures;

  [[nodiscard]] const BucketTable& buckets_of(bool is_client_chosen) const noexcept {
    return is_client_chosen ? *client_buckets : *buckets;
  }
  [[nodiscard]] const FlightTable& flights_of(bool is_client_chosen) const noexcept {
    return is_client_chosen ? *client_flights : *flights;
  }
};

// A text without a constructor. LIFETIME: of what it points to.
struct TextRef {
  const char* data;
  std::size_t size;
  operator std::string_view() const noexcept { return {data, size}; }  // NOLINT(google-explicit-constructor)
};

// One limit as it applies to one request. Without initializers, so that an array of them costs nothing until used.
struct LimitUse {
  LimitKind kind;
  bool is_dry_run;
  bool is_client_chosen;  // its subject: LimitTables
  bool may_overdraw;      // some location's costs of this limit are settled by the response
  CalendarUnit unit;
  std::uint64_t subject;
  std::uint64_t cost;
  std::uint64_t size;       // what the client is told: burst, amount, or requests at once
  std::uint64_t amount;     // rate: tokens …
  std::uint64_t period_ns;  // … per this time; also of a rolling quota
  std::int64_t begin;       // quotas: QuotaOrder::window
  std::int64_t end;
  TextRef name;     // LIFETIME: the snapshot's or the configuration's
  TextRef measure;  // what it counts, part of a name; empty: requests
};
static_assert(std::is_trivially_default_constructible_v<LimitUse>);

// How a limit stands after a look or a take.
struct LimitLevel {
  enum class Status : std::uint8_t { admitted, refused, full };  // full: its table has no room
  Status status;
  std::uint64_t remaining;
  std::uint64_t reset_ns;
  std::uint64_t retry_after_ns;  // 0 when admitted, UINT64_MAX for never
  std::uint64_t taken_ns;        // the arrival time a take left behind; 0 where that has no meaning
};

// Both kinds of quota are counted in one table: a quota that is changed from one to the other stays the same quota.
[[nodiscard]] constexpr bool is_same_table(LimitKind a, LimitKind b) noexcept {
  const auto is_quota = [](LimitKind kind) {
    return kind == LimitKind::calendar_quota || kind == LimitKind::rolling_quota;
  };
  return a == b || (is_quota(a) && is_quota(b));
}

// What was taken, for when the request ends. 72 bytes a limit.
struct TakenLimit {
  std::uint64_t subject;
  std::uint64_t cost;      // charged so far
  std::uint64_t amount;    // rate, rolling quota
  std::uint64_t period;    // rate, rolling quota; calendar quota: end of its window
  std::uint64_t taken_ns;  // rate, rolling quota; calendar quota: begin of its window
  std::uint64_t burst;     // rate
  TextRef measure;         // LIFETIME: as in the LimitUse, unless somebody replaces it by a copy
  FlightLease lease;
  LimitKind kind;
  CalendarUnit unit;
  std::uint8_t taker;
  bool is_client_chosen;
};
static_assert(sizeof(TakenLimit) == 72);

// Who takes for a client request: 0 is the request itself, every other number one of its subrequests.
inline constexpr std::uint8_t kMainTaker = 0;

// All limits this client request has taken from, over all its passes through the phases and all its subrequests: each
// limit is in it once.
struct Takings {
  std::size_t count = 0;
  std::uint8_t taker = kMainTaker;  // who takes next
  std::array<TakenLimit, kMaxUses> limits;
  Takings() noexcept {}  // NOLINT(modernize-use-equals-default): leaves the array alone, which `= default` would clear
  // Null where this request has not taken from it. A counter is known by its table and its subject: a rate and a
  // concurrency of one name and holder have the same subject and are two counters.
  [[nodiscard]] TakenLimit* find(LimitKind kind, std::uint64_t subject) noexcept;
};

struct TakeResult {
  Outcome outcome = Outcome::ok;  // or rate_limited, quota_exceeded, concurrency_limited, unavailable
  bool has_limit = false;         // `decided_by` and `level` say something
  // Requests in flight only where they refuse, or stand alone.
  std::size_t decided_by = 0;  // the limit that refuses for longest, or else the one with the least share left
  LimitLevel level{};
  // A limit in dry run that would have refused: it decides nothing.
  Outcome dry_outcome = Outcome::ok;
};

// Takes from all limits that this request has not taken from yet, or from none. Those it has are looked at. What a
// subrequest took before the request itself takes becomes the request's own, at the request's cost.
[[nodiscard]] TakeResult take_limits(const LimitTables& tables, std::span<const LimitUse> uses, const Clocks& clocks,
                                     Takings& takings) noexcept;
// What take_limits() would give, without taking.
[[nodiscard]] TakeResult look_at_limits(const LimitTables& tables, std::span<const LimitUse> uses,
                                        const Clocks& clocks) noexcept;
[[nodiscard]] LimitLevel look_at_limit(const LimitTables& tables, const LimitUse& use, const Clocks& clocks) noexcept;

// The true cost has become known: charges or gives back the difference. More than is left may be charged; the limit
// then recovers from below nothing.
void settle_cost(const LimitTables& tables, TakenLimit& taken, std::uint64_t cost, const Clocks& clocks) noexcept;
// Gives back what the takers up to this one have taken. Requests in flight stay until release_flights().
void refund_costs(const LimitTables& tables, Takings& takings, std::uint8_t last_taker, const Clocks& clocks) noexcept;
void release_flights(const LimitTables& tables, Takings& takings) noexcept;

}  // namespace apikey

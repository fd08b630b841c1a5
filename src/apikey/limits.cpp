// Taking from all limits of a request or from none, and settling what was taken (see limits.hpp).
// Called by the decision, by what shows limits, and at the end of a request. Must never let more through than each
// limit says, whoever else takes at the same time.
#include "apikey/limits.hpp"

#include <algorithm>

namespace apikey {
namespace {

__extension__ using Wide = unsigned __int128;

using Status = LimitLevel::Status;

BucketUse bucket_use(const LimitUse& use) noexcept {
  return {use.subject, {use.amount, use.period_ns, use.size}, use.may_overdraw};
}

QuotaOrder quota_order(const LimitUse& use, std::uint64_t cost) noexcept {
  QuotaOrder order;
  order.subject = use.subject;
  order.amount = use.size;
  order.period_ns = use.kind == LimitKind::rolling_quota ? use.period_ns : 0;
  order.granted = use.size - use.amount;
  order.window = {{use.begin}, {use.end}};
  order.cost = cost;
  return order;
}

LimitLevel level_of(const BucketResult& result) noexcept {
  return {result.is_admitted ? Status::admitted : Status::refused, result.remaining, result.reset_ns,
          result.retry_after_ns, result.arrival_ns};
}

LimitLevel level_of(const QuotaResult& result) noexcept {
  Status status = Status::full;
  if (result.status != QuotaResult::Status::full) {
    status = result.status == QuotaResult::Status::admitted ? Status::admitted : Status::refused;
  }
  return {status, result.remaining, result.reset_ns, result.retry_after_ns, result.taken_us};
}

// When a request in flight ends nobody knows: it may be tried again at once.
LimitLevel level_of(const FlightResult& result) noexcept {
  switch (result.status) {
    case FlightResult::Status::admitted:
      return {Status::admitted, result.remaining, 0, 0, 0};
    case FlightResult::Status::refused:
      return {Status::refused, 0, kNsPerSecond, kNsPerSecond, 0};
    case FlightResult::Status::full:
      break;
  }
  return {Status::full, 0, 0, kNsPerSecond, 0};
}

LimitLevel look(const LimitTables& tables, const LimitUse& use, std::uint64_t cost, const Clocks& clocks) noexcept {
  switch (use.kind) {
    case LimitKind::rate:
      return level_of(tables.buckets_of(use.is_client_chosen).look(bucket_use(use), cost, clocks.mono));
    case LimitKind::calendar_quota:
    case LimitKind::rolling_quota:
      return level_of(tables.quotas->look(quota_order(use, cost), clocks.wall_us));
    case LimitKind::concurrency: {
      FlightResult seen = tables.flights_of(use.is_client_chosen).look(use.subject, use.size);
      // Only to be shown: that none is left is no refusal.
      seen.status =
          cost == 0 && seen.status == FlightResult::Status::refused ? FlightResult::Status::admitted : seen.status;
      return level_of(seen);
    }
    case LimitKind::adjustment:
      break;
  }
  return {};
}

LimitLevel take(const LimitTables& tables, const LimitUse& use, const Clocks& clocks, FlightLease& lease) noexcept {
  switch (use.kind) {
    case LimitKind::rate:
      return level_of(tables.buckets_of(use.is_client_chosen).take(bucket_use(use), use.cost, clocks.mono));
    case LimitKind::calendar_quota:
    case LimitKind::rolling_quota:
      return level_of(tables.quotas->take(quota_order(use, use.cost), clocks.wall_us));
    case LimitKind::concurrency:
      return level_of(tables.flights_of(use.is_client_chosen).enter(use.subject, use.size, tables.holder, lease));
    case LimitKind::adjustment:
      break;
  }
  return {};
}

TakenLimit taken_of(const LimitUse& use, const LimitLevel& level, FlightLease lease, std::uint8_t taker) noexcept {
  TakenLimit taken;
  taken.subject = use.subject;
  taken.cost = use.kind == LimitKind::concurrency ? 0 : use.cost;
  taken.amount = use.amount;
  taken.period = use.period_ns;
  taken.taken_ns = level.taken_ns;
  taken.burst = use.size;
  if (use.kind == LimitKind::calendar_quota) {
    taken.period = static_cast<std::uint64_t>(use.end);
    taken.taken_ns = static_cast<std::uint64_t>(use.begin);
  }
  taken.measure = use.measure;
  taken.lease = lease;
  taken.kind = use.kind;
  taken.unit = use.unit;
  taken.is_client_chosen = use.is_client_chosen;
  taken.taker = taker;
  return taken;
}

QuotaOrder quota_order(const TakenLimit& taken, std::uint64_t cost) noexcept {
  QuotaOrder order;
  order.subject = taken.subject;
  order.amount = taken.amount;
  order.cost = cost;
  if (taken.kind == LimitKind::rolling_quota) {
    order.period_ns = taken.period;
    order.taken_us = taken.taken_ns;
  } else {
    order.window = {{static_cast<std::int64_t>(taken.taken_ns)}, {static_cast<std::int64_t>(taken.period)}};
  }
  return order;
}

BucketUse bucket_use(const TakenLimit& taken) noexcept {
  return {taken.subject, {taken.amount, taken.period, taken.burst}};
}

void give_back(const LimitTables& tables, TakenLimit& taken, std::uint64_t cost, const Clocks& clocks) noexcept {
  if (taken.kind == LimitKind::rate) {
    tables.buckets_of(taken.is_client_chosen).give_back(bucket_use(taken), cost, taken.taken_ns, clocks.mono);
  } else if (taken.kind != LimitKind::concurrency) {
    tables.quotas->give_back(quota_order(taken, cost), clocks.wall_us);
  }
  taken.cost -= cost;
}

void charge_more(const LimitTables& tables, TakenLimit& taken, std::uint64_t cost, const Clocks& clocks) noexcept {
  if (taken.kind == LimitKind::rate) {
    tables.buckets_of(taken.is_client_chosen).charge(bucket_use(taken), cost, clocks.mono);
  } else if (taken.kind != LimitKind::concurrency) {
    QuotaOrder order = quota_order(taken, cost);
    if (taken.kind == LimitKind::calendar_quota && clocks.wall >= order.window.end) {
      order.window = window_at(taken.unit, clocks.wall);  // what becomes known later counts later
    }
    static_cast<void>(tables.quotas->charge(order, clocks.wall_us));
  }
  taken.cost += cost;
}

Outcome outcome_of(const LimitUse& use, const LimitLevel& level) noexcept {
  if (level.status == Status::full) {
    return Outcome::unavailable;
  }
  switch (use.kind) {
    case LimitKind::rate:
      return Outcome::rate_limited;
    case LimitKind::concurrency:
      return Outcome::concurrency_limited;
    default:
      return Outcome::quota_exceeded;
  }
}

// Requests in flight come and go: as long as they refuse nobody they say less than a limit that counts over time.
bool has_less_left(const LimitUse& a, const LimitLevel& a_level, const LimitUse& b,
                   const LimitLevel& b_level) noexcept {
  const bool is_flight = a.kind == LimitKind::concurrency;
  if (is_flight != (b.kind == LimitKind::concurrency)) {
    return !is_flight;
  }
  return Wide{a_level.remaining} * b.size < Wide{b_level.remaining} * a.size;
}

// Adds limit `i` to what is known of the limits before it: what the client is told is the refusal that lasts longest,
// or the limit with the least share left.
void add_to(TakeResult& result, std::span<const LimitUse> uses, std::size_t i, const LimitLevel& level) noexcept {
  const LimitUse& use = uses[i];
  const bool refuses = level.status != Status::admitted;
  if (use.is_dry_run) {
    if (refuses && result.dry_outcome == Outcome::ok) {
      result.dry_outcome = outcome_of(use, level);
    }
    return;
  }
  const bool has_refused = result.outcome != Outcome::ok;
  bool is_better = !result.has_limit;
  if (result.has_limit && refuses) {
    is_better = !has_refused || level.retry_after_ns > result.level.retry_after_ns;
  } else if (result.has_limit && !has_refused) {
    is_better = has_less_left(use, level, uses[result.decided_by], result.level);
  }
  if (is_better) {
    result.has_limit = true;
    result.decided_by = i;
    result.level = level;
  }
  // A table without room says nothing of the key: that comes before any other refusal.
  if (refuses && result.outcome != Outcome::unavailable && (is_better || level.status == Status::full)) {
    result.outcome = outcome_of(use, level);
  }
}

// The places of `uses` by subject: all workers take in this order.
std::span<const std::uint8_t> order_by_subject(std::span<const LimitUse> uses, std::span<std::uint8_t> order) noexcept {
  for (std::size_t i = 0; i < uses.size(); ++i) {
    std::size_t at = i;
    for (; at > 0 && uses[order[at - 1]].subject > uses[i].subject; --at) {
      order[at] = order[at - 1];
    }
    order[at] = static_cast<std::uint8_t>(i);
  }
  return order.first(uses.size());
}

// Gives back what this attempt took: everything in `takings` from `first` on.
void undo(const LimitTables& tables, Takings& takings, std::size_t first, const Clocks& clocks) noexcept {
  for (TakenLimit& taken : std::span(takings.limits).subspan(first, takings.count - first)) {
    if (taken.lease.is_held()) {
      tables.flights_of(taken.is_client_chosen).leave(taken.lease, tables.holder);
    }
    give_back(tables, taken, taken.cost, clocks);
  }
  takings.count = first;
}

// Takes from each that `takings` does not have. RETURNS: the place of the one that refused, uses.size() for none.
std::size_t take_each(const LimitTables& tables, std::span<const LimitUse> uses, const Clocks& clocks,
                      std::span<LimitLevel> levels, Takings& takings) noexcept {
  std::array<std::uint8_t, kMaxUses> buffer;
  const std::size_t first = takings.count;
  for (const std::size_t i : order_by_subject(uses, buffer)) {
    if (takings.find(uses[i].kind, uses[i].subject) != nullptr) {
      continue;
    }
    FlightLease lease;
    levels[i] = take(tables, uses[i], clocks, lease);
    if (levels[i].status == Status::admitted) {
      takings.limits[takings.count++] = taken_of(uses[i], levels[i], lease, takings.taker);
    } else if (!uses[i].is_dry_run) {
      undo(tables, takings, first, clocks);
      return i;
    }
  }
  return uses.size();
}

TakeResult summarize(std::span<const LimitUse> uses, std::span<const LimitLevel> levels) noexcept {
  TakeResult result;
  for (std::size_t i = 0; i < uses.size(); ++i) {
    add_to(result, uses, i, levels[i]);
  }
  return result;
}

constexpr TakeResult unavailable() noexcept {
  TakeResult result;
  result.outcome = Outcome::unavailable;
  return result;
}

// What subrequests took before the request itself does becomes its own; where its cost is another one it takes again.
void take_over(const LimitTables& tables, std::span<const LimitUse> uses, const Clocks& clocks,
               Takings& takings) noexcept {
  for (const LimitUse& use : uses) {
    TakenLimit* taken = takings.find(use.kind, use.subject);
    if (taken == nullptr || taken->taker == kMainTaker) {
      continue;
    }
    taken->taker = kMainTaker;
    if (use.kind != LimitKind::concurrency && use.cost != taken->cost) {
      give_back(tables, *taken, taken->cost, clocks);
      *taken = takings.limits[--takings.count];
    }
  }
}

// Nearly every request: one limit, not taken yet. One take is both look and take.
TakeResult take_one(const LimitTables& tables, const LimitUse& use, const Clocks& clocks, Takings& takings) noexcept {
  FlightLease lease;
  const LimitLevel level = take(tables, use, clocks, lease);
  if (level.status == Status::admitted) {
    takings.limits[takings.count++] = taken_of(use, level, lease, takings.taker);
  }
  return summarize({&use, 1}, {&level, 1});
}

}  // namespace

TakenLimit* Takings::find(LimitKind kind, std::uint64_t subject) noexcept {
  const auto taken = std::span(limits).first(count);
  const auto found = std::find_if(taken.begin(), taken.end(), [&](const TakenLimit& t) {
    return t.subject == subject && is_same_table(t.kind, kind);
  });
  return found == taken.end() ? nullptr : &*found;
}

LimitLevel look_at_limit(const LimitTables& tables, const LimitUse& use, const Clocks& clocks) noexcept {
  return look(tables, use, 0, clocks);
}

TakeResult look_at_limits(const LimitTables& tables, std::span<const LimitUse> uses, const Clocks& clocks) noexcept {
  TakeResult result;
  for (std::size_t i = 0; i < uses.size(); ++i) {
    add_to(result, uses, i, look(tables, uses[i], uses[i].cost, clocks));
  }
  return result;
}

TakeResult take_limits(const LimitTables& tables, std::span<const LimitUse> uses, const Clocks& clocks,
                       Takings& takings) noexcept {
  if (uses.size() > kMaxUses) {
    return unavailable();
  }
  if (uses.size() == 1 && takings.count == 0) {
    return take_one(tables, uses[0], clocks, takings);
  }
  if (takings.taker == kMainTaker) {
    take_over(tables, uses, clocks, takings);
  }
  std::array<LimitLevel, kMaxUses> levels;
  std::size_t fresh = 0;
  for (std::size_t i = 0; i < uses.size(); ++i) {
    const TakenLimit* taken = takings.find(uses[i].kind, uses[i].subject);
    fresh += taken == nullptr ? 1 : 0;
    levels[i] = look(tables, uses[i], taken == nullptr ? uses[i].cost : 0, clocks);
  }
  if (fresh > kMaxUses - takings.count) {
    return unavailable();
  }
  const auto seen = std::span<const LimitLevel>(levels).first(uses.size());
  const TakeResult looked = summarize(uses, seen);
  if (looked.outcome != Outcome::ok) {
    return looked;
  }
  const std::size_t loser = take_each(tables, uses, clocks, levels, takings);
  if (loser == uses.size()) {
    return summarize(uses, seen);
  }
  TakeResult lost;
  add_to(lost, uses, loser, levels[loser]);
  return lost;
}

void settle_cost(const LimitTables& tables, TakenLimit& taken, std::uint64_t cost, const Clocks& clocks) noexcept {
  if (taken.kind == LimitKind::concurrency) {
    return;
  }
  if (cost > taken.cost) {
    charge_more(tables, taken, cost - taken.cost, clocks);
  } else if (cost < taken.cost) {
    give_back(tables, taken, taken.cost - cost, clocks);
  }
}

void refund_costs(const LimitTables& tables, Takings& takings, std::uint8_t last_taker, const Clocks& clocks) noexcept {
  for (TakenLimit& taken : std::span(takings.limits).first(takings.count)) {
    if (taken.cost != 0 && taken.taker <= last_taker) {
      give_back(tables, taken, taken.cost, clocks);
    }
  }
}

void release_flights(const LimitTables& tables, Takings& takings) noexcept {
  for (TakenLimit& taken : std::span(takings.limits).first(takings.count)) {
    if (taken.lease.is_held()) {
      tables.flights_of(taken.is_client_chosen).leave(taken.lease, tables.holder);
      taken.lease = {};
    }
  }
}

}  // namespace apikey

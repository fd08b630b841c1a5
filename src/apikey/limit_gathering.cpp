// Which limits apply to a request, and what it costs each of them (see limit_gathering.hpp).
// Called by the decision and by what shows limits. Must never leave a limit out: what cannot be read is said.
#include "apikey/limit_gathering.hpp"

#include <algorithm>
#include <array>

namespace apikey {
namespace {

// Names that limits have where none is written: all of them measure requests.
constexpr std::array<std::string_view, 9> kRequestNames = {"rate",  "minute", "hour",  "day",   "week",
                                                           "month", "year",   "owner", "server"};

__extension__ using Wide = unsigned __int128;

std::uint64_t share_of(std::uint64_t amount, const Share& share) noexcept {
  if (share.part == share.whole) {
    return amount;
  }
  return std::max<std::uint64_t>(static_cast<std::uint64_t>(Wide{amount} * share.part / share.whole), 1);
}

// The cost that is for this measure, else the one for all others; null where there is neither.
const MeasuredCost* cost_of(std::string_view measure, std::span<const MeasuredCost> costs) noexcept {
  const MeasuredCost* for_others = nullptr;
  for (const MeasuredCost& each : costs) {
    if (measure.empty() ? each.measure == "requests" : each.measure == measure) {
      return &each;
    }
    if (each.measure.empty()) {
      for_others = &each;
    }
  }
  return for_others;
}

// Wherever the response settles it: what is owed then is owed everywhere.
bool is_settled_somewhere(std::string_view limit_measure, std::span<const std::string_view> settled_measures) noexcept {
  const std::string_view wanted = limit_measure.empty() ? std::string_view("requests") : limit_measure;
  return std::any_of(settled_measures.begin(), settled_measures.end(),
                     [&](std::string_view measure) { return measure.empty() || measure == wanted; });
}

void set_cost(LimitUse& use, std::string_view measure, const LimitTables& tables,
              std::span<const MeasuredCost> costs) noexcept {
  const MeasuredCost* cost = use.kind == LimitKind::concurrency ? nullptr : cost_of(measure, costs);
  use.measure = {measure.data(), measure.size()};
  use.cost = cost == nullptr ? 1 : cost->cost;
  use.may_overdraw = use.kind == LimitKind::rate && is_settled_somewhere(measure, tables.settled_measures);
}

void set_rate(LimitUse& use, const Rate& rate, std::uint64_t burst, const Share& share) noexcept {
  use.size = share_of(burst, share);
  use.amount = rate.amount * share.part;
  use.period_ns = rate.period_ns * share.whole;
}

}  // namespace

std::string_view measure_of(std::string_view limit_name) noexcept {
  const std::string_view first = limit_name.substr(0, limit_name.find('.'));
  // A limit of a location that has no name of its own is called by the location's: /orders, @fallback.
  const bool is_location = first.empty() || first.front() == '/' || first.front() == '@';
  return !is_location && std::find(kRequestNames.begin(), kRequestNames.end(), first) == kRequestNames.end()
             ? first
             : std::string_view();
}

std::string_view measure_of(const LocationLimit& limit) noexcept {
  return limit.place == 0 ? measure_of(limit.name) : std::string_view();
}

namespace {

struct GatherContext {
  const Snapshot& snapshot;
  const LimitTables& tables;
  std::span<const MeasuredCost> costs;
  UnixSec now;
};

std::uint64_t subject_of(const LimitTables& tables, LimitKind kind, std::string_view name,
                         std::span<const std::uint8_t> id) noexcept {
  switch (kind) {
    case LimitKind::calendar_quota:
    case LimitKind::rolling_quota:
      return tables.quotas->subject(name, id);
    case LimitKind::concurrency:
      return tables.flights->subject(name, id);
    default:
      return tables.buckets->subject(name, id);
  }
}

LimitUse key_use(const GatherContext& context, const LimitRow& row, std::string_view name,
                 std::span<const std::uint8_t> id) noexcept {
  const Share& share = context.tables.share;
  LimitUse use;
  use.kind = row.kind;
  use.is_dry_run = row.is_dry_run;
  use.is_client_chosen = false;
  use.unit = row.unit;
  use.subject = subject_of(context.tables, row.kind, name, id);
  use.size = share_of(row.amount, share);
  use.amount = use.size;
  use.period_ns = row.period_ns;
  use.begin = 0;
  use.end = 0;
  use.name = {name.data(), name.size()};
  if (row.kind == LimitKind::rate) {
    set_rate(use, {row.amount, row.period_ns}, row.burst, share);
  } else if (row.kind == LimitKind::calendar_quota) {
    const Window window = window_at(row.unit, context.now);
    use.begin = window.begin.value;
    use.end = window.end.value;
  }
  set_cost(use, measure_of(name), context.tables, context.costs);
  return use;
}

// What resets and grants have done to a quota that is among `uses`.
void adjust(const GatherContext& context, const LimitRow& row, std::string_view name,
            std::span<LimitUse> uses) noexcept {
  for (LimitUse& use : uses) {
    if (!is_same_table(use.kind, LimitKind::calendar_quota) || std::string_view(use.name) != name) {
      continue;
    }
    const auto granted_until = static_cast<std::int64_t>(row.period_ns);
    const auto last_reset = static_cast<std::int64_t>(row.burst);
    if (context.now.value < granted_until) {
      use.size += share_of(row.amount, context.tables.share);
    }
    const Window window = begun_anew({{use.begin}, {use.end}}, {last_reset}, context.now);
    use.begin = use.kind == LimitKind::rolling_quota ? last_reset : window.begin.value;
  }
}

// Adds the limits of one list for one subject. `replaceable`: those of the plan, which a key's own replace by kind and
// name.
bool add_list(const GatherContext& context, const LimitList& list, std::span<const std::uint8_t> id,
              std::span<LimitUse> replaceable, std::span<LimitUse> uses, std::size_t& count) noexcept {
  for (std::size_t i = 0; i < list.size(); ++i) {
    const LimitRow row = list[i];
    std::string_view name;
    if (!context.snapshot.string(row.name, name)) {
      return false;
    }
    if (row.kind == LimitKind::adjustment) {
      continue;
    }
    const auto old = std::find_if(replaceable.begin(), replaceable.end(), [&](const LimitUse& use) {
      return is_same_table(use.kind, row.kind) && std::string_view(use.name) == name;
    });
    if (old == replaceable.end() && count == uses.size()) {
      return false;
    }
    (old == replaceable.end() ? uses[count++] : *old) = key_use(context, row, name, id);
  }
  return true;
}

// After all limits of the subject are there.
bool adjust_by(const GatherContext& context, const LimitList& list, std::span<LimitUse> uses) noexcept {
  for (std::size_t i = 0; i < list.size(); ++i) {
    const LimitRow row = list[i];
    std::string_view name;
    if (row.kind != LimitKind::adjustment) {
      continue;
    }
    if (!context.snapshot.string(row.name, name)) {
      return false;
    }
    adjust(context, row, name, uses);
  }
  return true;
}

}  // namespace

bool gather_key_limits(const Snapshot& snapshot, const Record& record, const OwnerRow& owner, const LimitTables& tables,
                       std::span<const MeasuredCost> costs, UnixSec now, std::span<LimitUse> uses,
                       std::size_t& count) noexcept {
  count = 0;
  PlanRow plan;
  LimitList own;
  std::span<const std::byte> own_bytes;
  if (!snapshot.plan(record.plan, plan) || !snapshot.bytes(record.limits, own_bytes) ||
      !decode_limits(own_bytes, own)) {
    return false;
  }
  const GatherContext context{snapshot, tables, costs, now};
  const std::span<const std::uint8_t> family(record.family.bytes);
  if (!add_list(context, plan.limits, family, {}, uses, count) ||
      !add_list(context, own, family, uses.first(count), uses, count) || !adjust_by(context, own, uses.first(count))) {
    return false;
  }
  if (owner.limits.size() == 0) {
    return true;
  }
  std::array<std::uint8_t, 16> id{};
  std::transform(owner.id.begin(), owner.id.end(), id.begin(),
                 [](std::byte b) { return static_cast<std::uint8_t>(b); });
  const std::size_t before = count;
  return add_list(context, owner.limits, id, {}, uses, count) &&
         adjust_by(context, owner.limits, uses.subspan(before, count - before));
}

void settle_costs(const LimitTables& tables, Takings& takings, std::uint8_t taker, std::span<const MeasuredCost> costs,
                  const Clocks& clocks) noexcept {
  for (TakenLimit& taken : std::span(takings.limits).first(takings.count)) {
    const MeasuredCost* cost = taken.taker == taker ? cost_of(taken.measure, costs) : nullptr;
    if (cost != nullptr && cost->is_settled) {
      settle_cost(tables, taken, cost->cost, clocks);
    }
  }
}

LimitUse location_use(const LocationLimit& limit, std::uint64_t subject, bool is_client_chosen,
                      const LimitTables& tables, std::span<const MeasuredCost> costs) noexcept {
  LimitUse use;
  use.kind = limit.kind;
  use.is_dry_run = false;
  use.is_client_chosen = is_client_chosen;
  use.unit = CalendarUnit::none;
  use.subject = subject;
  use.amount = 0;
  use.period_ns = 0;
  use.begin = 0;
  use.end = 0;
  use.name = {limit.name.data(), limit.name.size()};
  if (limit.kind == LimitKind::rate) {
    set_rate(use, limit.rate, limit.burst, tables.share);
  } else {
    use.size = share_of(limit.burst, tables.share);
  }
  set_cost(use, measure_of(limit), tables, costs);
  return use;
}

}  // namespace apikey
